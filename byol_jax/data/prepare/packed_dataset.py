"""A packed set: writes shrunken images shard by shard, and goes on where it was stopped.

Shards hold the images in the source's order, which is a hash's already: of the file name in a
folder, of TFDS's key in a set. So ``train[:10000]`` of a set stays what it was.
"""

import collections
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

from byol_jax import config as config_lib
from byol_jax.data import eval_loader, gray, image_decoding
from byol_jax.data.prepare import array_record, pack_sources, shrinking
from byol_jax.host import machine
from byol_jax.workdir import console, files

UsageError = config_lib.UsageError

CARD = "pack.json"
BAD_IMAGES = "bad_images.txt"
_ELSEWHERE = "Choose another folder by --config.output_dir."


class Settings(NamedTuple):
    """What decides the bytes of a packed set, besides its source.

    Attributes:
      data_name: of the source.
      shorter_side: in pixels, at most.
      quality: of JPEG, 1 to 100.
      shard_images: images in a file.
    """

    data_name: str
    shorter_side: int
    quality: int
    shard_images: int


class Shard(NamedTuple):
    """One file to write: the split's images from ``start`` to ``stop``, but for bad ones."""

    split: str
    path: pathlib.Path
    start: int
    stop: int


class PackedSet:
    """A set that is being written, or has been.

    Args:
      source: what to pack.
      target: folder of the set.
      settings: how to pack it.
      max_bad_share: of a split's images may be bad.

    Raises:
      UsageError: the folder holds something else, or what was packed with other settings.
    """

    def __init__(
        self,
        source: pack_sources.Source,
        target: pathlib.Path,
        settings: Settings,
        *,
        max_bad_share: float,
    ):
        from tensorflow_datasets.core import example_serializer

        self._source, self._target, self._settings = source, target, settings
        self._max_bad_share = max_bad_share
        self._serializer = example_serializer.ExampleSerializer(
            source.features.get_serialized_info()
        )
        self._ranges = self._measure_gray()
        self._open()
        self._bad = self._read_bad()  # split, then index: name and reason

    def is_finished(self) -> bool:
        """Whether the whole set is there."""
        return (self._target / array_record.INFO).exists() and not self._missing()

    def pack(self) -> None:
        """Writes all shards that are missing, then what makes a set of them."""
        missing, shards = self._missing(), self.shards()
        if len(missing) < len(shards):
            done = len(shards) - len(missing)
            console.say(f"{done} of {len(shards)} shards are finished; going on.")
        total, left = (sum(s.stop - s.start for s in some) for some in (shards, missing))
        threads = machine.processors()
        title = f"packing {self._source.info['name']}"
        bar = console.progress_bar(total=total, done=total - left, unit=" images", title=title)
        with bar, futures.ThreadPoolExecutor(threads) as pool:
            for shard in missing:
                encode = functools.partial(self._encode, shard.split)
                encoded = in_order(pool, encode, range(shard.start, shard.stop), 4 * threads)
                array_record.write_shard(shard.path, self._good(shard, encoded, bar))
        self._write_metadata()

    def shards(self) -> list[Shard]:
        """All files of the set."""
        name, size = self._source.info["name"], self._settings.shard_images
        shards = []
        for split, found in self._source.splits.items():
            starts = range(0, len(found), size)
            for number, start in enumerate(starts):
                file = f"{name}-{split}.array_record-{number:05}-of-{len(starts):05}"
                stop = min(start + size, len(found))
                shards.append(Shard(split, self._target / file, start, stop))
        return shards

    def _length(self, shard: Shard) -> int:
        bad = sum(shard.start <= index < shard.stop for index in self._bad[shard.split])
        return shard.stop - shard.start - bad

    def _missing(self) -> list[Shard]:
        return [s for s in self.shards() if array_record.count(s.path) != self._length(s)]

    def _encode(self, split: str, index: int) -> bytes | image_decoding.BadImageError:
        try:
            example = self._source.splits[split].example(index)
            example["image"] = shrinking.shrink(
                example["image"],
                shorter_side=self._settings.shorter_side,
                quality=self._settings.quality,
                ranges=self._ranges,
            )
        except image_decoding.BadImageError as error:
            return error
        # Else the features' order, and so the bytes, would change from run to run.
        return self._serializer.get_tf_example(example).SerializeToString(deterministic=True)

    def _good(
        self, shard: Shard, encoded: Iterable[bytes | image_decoding.BadImageError], bar: Any
    ) -> Iterator[bytes]:
        bad = self._bad[shard.split]
        for index in range(shard.start, shard.stop):
            bad.pop(index, None)  # of an earlier attempt
        for index, result in zip(range(shard.start, shard.stop), encoded, strict=True):
            bar.update()
            if isinstance(result, bytes):
                yield result
                continue
            bad[index] = f"{self._source.splits[shard.split].name(index)}\t{result}"
            self._check_bad(shard.split)
        self._write_bad()  # before the shard gets its name: it tells how long the shard is

    def _check_bad(self, split: str) -> None:
        bad, count = self._bad[split], len(self._source.splits[split])
        if len(bad) <= int(self._max_bad_share * count):
            return
        self._write_bad()
        lines = "".join("\n  " + line.replace("\t", ": ") for line in list(bad.values())[:3])
        raise UsageError(
            f"{len(bad)} of {count:,} images of '{split}' cannot be used, more than "
            f"data.max_bad_share allows. Such as:{lines}\nMend or remove them, or allow more: the "
            "same command with a larger --config.data.max_bad_share (a share, such as 0.05) goes "
            "on."
        )

    def _open(self) -> None:
        path, card = self._target / CARD, self._card()
        if not path.exists():
            self._require_empty()
            files.write_text(path, json.dumps(card, indent=2) + "\n")
            return
        try:
            differences = config_lib.differences(json.loads(files.read_bytes(path)), card)
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise UsageError(f"Cannot read {path}: {error}. {_ELSEWHERE}") from None
        if differences:
            raise UsageError(
                f"{self._target} was packed, or begun, in another way:\n  "
                + "\n  ".join(differences)
                + "\nGive the same settings to go on, or another --config.output_dir, or remove "
                "that folder."
            )

    def _measure_gray(self) -> gray.Ranges | None:
        """What is black and white in deep grayscale, by the first split, for all of them."""
        split = next(iter(self._source.splits.values()))
        count = min(len(split), eval_loader.GRAY_SAMPLE)
        return eval_loader.measure_gray(lambda index: split.example(index)["image"], count)

    def _require_empty(self) -> None:
        if (self._target / array_record.INFO).exists():
            raise UsageError(
                f"{self._target} holds a set that was not made by this task. {_ELSEWHERE}"
            )
        try:
            found = sorted(p.name for p in self._target.iterdir() if not files.is_part(p))
        except FileNotFoundError:
            return
        except OSError as error:
            raise files.WriteError(self._target, error) from None
        if found:
            raise UsageError(f"{self._target} holds something else, {found[0]}. {_ELSEWHERE}")

    def _card(self) -> dict[str, Any]:
        ranges = self._ranges and {kind: list(ends) for kind, ends in self._ranges.items()}
        return {
            **self._settings._asdict(),
            **({"grey_ranges": ranges} if ranges else {}),
            "splits": {
                name: {"images": len(split), "fingerprint": split.fingerprint}
                for name, split in self._source.splits.items()
            },
        }

    def _read_bad(self) -> dict[str, dict[int, str]]:
        bad: dict[str, dict[int, str]] = {split: {} for split in self._source.splits}
        path = self._target / BAD_IMAGES
        try:
            for line in files.read_bytes(path).decode().splitlines() if path.exists() else []:
                split, index, text = line.split("\t", 2)
                bad[split][int(index)] = text
        except (OSError, ValueError, KeyError):
            raise UsageError(f"Cannot read {path}, a list of images that packing wrote.") from None
        return bad

    def _write_bad(self) -> None:
        lines = [
            "\t".join([split, str(index), " ".join(self._bad[split][index].splitlines())]) + "\n"
            for split in self._bad
            for index in sorted(self._bad[split])
        ]
        if lines or (self._target / BAD_IMAGES).exists():
            text = "".join(lines).encode("utf-8", "backslashreplace").decode()
            files.write_text(self._target / BAD_IMAGES, text)

    def _write_metadata(self) -> None:
        splits: dict[str, dict[str, Any]] = {}
        for shard in self.shards():
            info = splits.setdefault(shard.split, {"numBytes": 0, "shardLengths": []})
            info["numBytes"] += shard.path.stat().st_size
            info["shardLengths"].append(str(self._length(shard)))
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        info = self._source.info | {"fileFormat": "array_record"}
        info["splits"] = [
            {"name": name, "filepathTemplate": template} | found for name, found in splits.items()
        ]
        with files.writing(self._target):
            self._source.features.save_config(self._target)
        files.write_text(self._target / array_record.INFO, json.dumps(info, indent=2) + "\n")

    @property
    def num_bytes(self) -> int:
        """Of all shards, on disk."""
        return sum(shard.path.stat().st_size for shard in self.shards())

    @property
    def num_images(self) -> int:
        """Of all splits, without the bad ones."""
        return sum(self._length(shard) for shard in self.shards())

    @property
    def num_bad(self) -> int:
        """Images of all splits that were left out."""
        return sum(map(len, self._bad.values()))


def in_order(
    pool: futures.Executor, function: Callable[[int], Any], arguments: Iterable[int], limit: int
) -> Iterator[Any]:
    """``map`` on a pool, with no more than so many results waiting to be taken."""
    waiting: collections.deque[futures.Future] = collections.deque()
    for argument in arguments:
        waiting.append(pool.submit(function, argument))
        if len(waiting) >= limit:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
