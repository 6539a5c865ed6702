"""The conversion task: rewrites a TFDS set from TFRecord to ArrayRecord, without TensorFlow.

A TFRecord file is a row of records, each of them: its length (uint64, little endian), the length's
checksum (uint32), the bytes, their checksum. The bytes go into ArrayRecord as they are.
"""

import json
import os
import pathlib
import re
import shlex
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import google_crc32c

from byol_jax import config as config_lib
from byol_jax.data import datasets, tfds_source
from byol_jax.data.prepare import array_record
from byol_jax.workdir import files

UsageError = config_lib.UsageError

INFO, FEATURES = array_record.INFO, array_record.FEATURES
_SHARD_NUMBER = re.compile(r"\d{5,}-of-\d{5,}")
_COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")  # gzip, zlib


class Shard(NamedTuple):
    """One file of a set, before and after, and how many records it holds."""

    source: pathlib.Path
    target: pathlib.Path
    num_records: int


class Plan(NamedTuple):
    """What a conversion has to do.

    Attributes:
      name: of the set.
      source: folder of the set's files.
      target: folder to write.
      output_dir: the folder of sets that ``target`` is in.
      info: content of the new ``dataset_info.json``.
      shards: of all splits.
    """

    name: str
    source: pathlib.Path
    target: pathlib.Path
    output_dir: pathlib.Path
    info: dict[str, Any]
    shards: list[Shard]


def run(config: Any, workdir: pathlib.Path) -> None:
    """Converts the set that the config names, or goes on with it; the workdir is not used.

    Raises:
      UsageError: no such set, a damaged or compressed one, or a folder that cannot be written to.
    """
    del workdir
    name = config.data.name.removeprefix("tfds:")
    if not name:
        raise UsageError("Which set is to be converted? Give --config.data.name=NAME.")
    folder = pathlib.Path(os.path.abspath(tfds_source.find_folder(name, config.data.dir)))
    info = _read_info(folder / INFO, _AGAIN)
    if info.get("fileFormat", "tfrecord") == "array_record":
        array_record.say(f"{name} in {folder} is an ArrayRecord set already: nothing to do.")
        return
    _run(make_plan(name, folder, info, config.output_dir))


def make_plan(name: str, folder: pathlib.Path, info: dict[str, Any], output_dir: str) -> Plan:
    """What there is to do for the set in ``folder``; ``info`` is its ``dataset_info.json``.

    Raises:
      UsageError: another format than TFRecord, or an output folder that holds something else.
    """
    file_format = info.get("fileFormat", "tfrecord")
    if file_format != "tfrecord":
        raise UsageError(f"{name} in {folder} is {file_format}; only tfrecord can be converted.")
    below = pathlib.Path(*folder.parts[-3 if info.get("configName") else -2 :])
    root = folder.parents[len(below.parts) - 1]
    output = pathlib.Path(output_dir or f"{root}_array_record").expanduser()
    target = output / below
    if target.resolve() == folder.resolve():
        raise UsageError(f"--config.output_dir={output} is where the set is; choose another one.")
    new_info = {key: value for key, value in info.items() if key != "alternativeFileFormats"}
    new_info["fileFormat"] = "array_record"
    plan = Plan(name, folder, target, output, new_info, _make_shards(folder, target, info))
    _check_target(plan)
    return plan


def _make_shards(folder: pathlib.Path, target: pathlib.Path, info: dict[str, Any]) -> list[Shard]:
    import tensorflow_datasets as tfds

    shards = []
    for split in info.get("splits", []):
        lengths = [int(length) for length in split.get("shardLengths", [])]
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            template=split.get("filepathTemplate", ""),
            dataset_name=info["name"],
            split=split["name"],
            filetype_suffix="tfrecord",
        )
        if "%" in template.template:
            raise UsageError(f"{folder} holds compressed files, {template.template}. {_AGAIN}")
        new = template.replace(data_dir=target, filetype_suffix="array_record")
        pairs = zip(*(t.sharded_filepaths(len(lengths)) for t in (template, new)), strict=True)
        shards += [
            Shard(pathlib.Path(old), pathlib.Path(path), length)
            for (old, path), length in zip(pairs, lengths, strict=True)
        ]
    missing = [shard.source for shard in shards if not shard.source.is_file()]
    if missing:
        raise UsageError(f"{len(missing)} files are missing, such as {missing[0]}. {_AGAIN}")
    return shards


def _check_target(plan: Plan) -> None:
    for source, target in _copies(plan):
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise UsageError(
                f"{target} is there already, is not {source}, and is left as it is. {_ELSEWHERE}"
            )
    if not (plan.target / INFO).exists():
        return
    found = _read_info(plan.target / INFO, _ELSEWHERE)
    differing = [
        key for key in ("name", "fileFormat", "splits") if found.get(key) != plan.info.get(key)
    ]
    if differing:
        raise UsageError(
            f"{plan.target} holds another set (its {INFO} differs in {', '.join(differing)}). "
            f"{_ELSEWHERE}"
        )


_ELSEWHERE = "Choose another folder by --config.output_dir."


def _read_info(path: pathlib.Path, advice: str) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"Cannot read {path}: {error}. {advice}") from None
    if not isinstance(info, dict):
        raise UsageError(f"{path} does not describe a set. {advice}")
    return info


def _run(plan: Plan) -> None:
    missing = [s for s in plan.shards if array_record.count(s.target) != s.num_records]
    if not missing and (plan.target / INFO).exists():
        array_record.say(f"{plan.name} is already converted.\n{_how_to_train(plan)}")
        return
    if len(missing) < len(plan.shards):
        finished = len(plan.shards) - len(missing)
        array_record.say(f"{finished} of {len(plan.shards)} shards are finished; going on.")
    total, left = (sum(s.source.stat().st_size for s in some) for some in (plan.shards, missing))
    title = f"{plan.name} to ArrayRecord"
    with array_record.progress_bar(total=total, done=total - left, unit="B", title=title) as bar:
        for shard in missing:
            source = read_tfrecord(shard.source, shard.num_records, on_bytes=bar.update)
            array_record.write_shard(shard.target, source)
    _write_metadata(plan)
    size = sum(shard.target.stat().st_size for shard in plan.shards)
    count = sum(shard.num_records for shard in plan.shards)
    array_record.say(
        f"Converted {plan.name}: {count:,} records in {len(plan.shards):,} shards, "
        f"{array_record.format_size(size)}, in {plan.target}.\n{_how_to_train(plan)}"
    )


def _how_to_train(plan: Plan) -> str:
    name = plan.name if plan.name in datasets.DATASETS else f"tfds:{plan.name}"
    where = shlex.quote(str(plan.output_dir))
    return f"To train on it: --config.data.name={name} --config.data.dir={where}"


def _copies(plan: Plan) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """What is neither records nor written anew, from where and to where."""
    shards = {shard.source for shard in plan.shards}
    for path in sorted(plan.source.iterdir()):
        is_record = path in shards or _SHARD_NUMBER.search(path.name)
        if path.is_file() and not is_record and path.name not in (INFO, FEATURES):
            yield path, plan.target / path.name
    if (plan.source / FEATURES).is_file():
        yield plan.source / FEATURES, plan.target / FEATURES


def _write_metadata(plan: Plan) -> None:
    """Everything that is not a record; what makes TFDS see the set comes last."""
    for source, target in _copies(plan):
        _copy(source, target)
    # Where TFDS looks up which config is meant if only the set is named.
    defaults = pathlib.Path(plan.info["name"], ".config", "metadata.json")
    root = plan.source.parents[len(plan.target.relative_to(plan.output_dir).parts) - 1]
    if (root / defaults).is_file() and not (plan.output_dir / defaults).exists():
        _copy(root / defaults, plan.output_dir / defaults)
    files.write_text(plan.target / INFO, json.dumps(plan.info, indent=2, sort_keys=True) + "\n")


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a small file."""
    files.write_bytes(target, source.read_bytes())


_AGAIN = (
    "Get that file once more from where it came, or prepare the set anew; shards that were "
    "finished are kept: rerun the same command to resume."
)


def read_tfrecord(
    path: pathlib.Path,
    num_records: int,
    *,
    on_bytes: Callable[[int], Any] = lambda number: None,
) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, one at a time in memory.

    Args:
      path: of the file.
      num_records: how many it has to hold.
      on_bytes: called after every record with the number of bytes that it took in the file.

    Raises:
      UsageError: a wrong checksum, a truncated file, another number of records, a compressed file;
        with the record's number and where it begins.
    """
    offset = number = 0
    with path.open("rb", buffering=1 << 20) as file:
        while header := file.read(12):
            where = f"{path}, record {number} at byte {offset:,}"
            if number == 0 and header.startswith(_COMPRESSED) and not _is_sound(header):
                raise UsageError(f"{path} is compressed, which cannot be converted. {_AGAIN}")
            yield _read_record(file, header, where)
            size = file.tell() - offset
            offset += size
            number += 1
            on_bytes(size)
    if number != num_records:
        raise UsageError(
            f"{path} ends at byte {offset:,} after {number:,} records; {INFO} says that it has "
            f"{num_records:,}. {_AGAIN}"
        )


def _is_sound(header: bytes) -> bool:
    return len(header) == 12 and _checksum(header[:8]) == header[8:]


def _read_record(file: Any, header: bytes, where: str) -> bytes:
    if len(header) == 12 and not _is_sound(header):
        raise UsageError(f"{where}: damaged, the checksum of its length is wrong. {_AGAIN}")
    # A sound length is no reason to believe that so many bytes are there.
    length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
    data, checksum = file.read(length), file.read(4)
    if len(header) < 12 or len(data) < length or len(checksum) < 4:
        raise UsageError(f"{where}: the file ends within it. {_AGAIN}")
    if _checksum(data) != checksum:
        raise UsageError(f"{where}: damaged, its checksum is wrong. {_AGAIN}")
    return data


def _checksum(data: bytes) -> bytes:
    """TFRecord's: a CRC-32C, turned and shifted."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
