"""The conversion task: rewrites a TFDS set from TFRecord to ArrayRecord, without TensorFlow.

A TFRecord file is a row of records, each of them: its length (uint64, little endian), the length's
checksum (uint32), the bytes, their checksum. The bytes go into ArrayRecord as they are.
"""

import json
import os
import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from byol_jax import config as config_lib
from byol_jax.data import datasets, tfds_source
from byol_jax.data.prepare import array_record, tfrecord
from byol_jax.workdir import console, files

UsageError = config_lib.UsageError

INFO, FEATURES = array_record.INFO, array_record.FEATURES
_SHARD_NUMBER = re.compile(r"\d{5,}-of-\d{5,}")


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
    info = _read_info(folder / INFO, tfrecord.AGAIN)
    if info.get("fileFormat", "tfrecord") == "array_record":
        console.say(f"{name} in {folder} is an ArrayRecord set already: nothing to do.")
        return
    _run(make_plan(name, folder, info, config.output_dir))


def _shards_by(info: dict[str, Any], folder: pathlib.Path, target: pathlib.Path) -> list[Shard]:
    """What a description says of the files; it may have been written by anybody."""
    try:
        return _make_shards(folder, target, info)
    except UsageError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder / INFO} does not describe its files: {error!r}. {tfrecord.AGAIN}"
        ) from None


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
    plan = Plan(name, folder, target, output, new_info, _shards_by(info, folder, target))
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
            raise UsageError(
                f"{folder} holds compressed files, {template.template}. {tfrecord.AGAIN}"
            )
        new = template.replace(data_dir=target, filetype_suffix="array_record")
        pairs = zip(*(t.sharded_filepaths(len(lengths)) for t in (template, new)), strict=True)
        shards += [
            Shard(pathlib.Path(old), pathlib.Path(path), length)
            for (old, path), length in zip(pairs, lengths, strict=True)
        ]
    missing = [shard.source for shard in shards if not shard.source.is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} files are missing, such as {missing[0]}. {tfrecord.AGAIN}"
        )
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
        info = json.loads(files.read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"Cannot read {path}: {error}. {advice}") from None
    if not isinstance(info, dict):
        raise UsageError(f"{path} does not describe a set. {advice}")
    return info


def _run(plan: Plan) -> None:
    missing = [s for s in plan.shards if array_record.count(s.target) != s.num_records]
    theirs = next((s for s in missing if s.target.exists()), None)  # ours are whole or not there
    if theirs:
        raise UsageError(
            f"{theirs.target} is there already, does not hold the {theirs.num_records:,} records "
            f"of its shard, and is left as it is: remove it. {_ELSEWHERE}"
        )
    if not missing and (plan.target / INFO).exists():
        console.say(f"{plan.name} is already converted.\n{_how_to_train(plan)}")
        return
    if len(missing) < len(plan.shards):
        finished = len(plan.shards) - len(missing)
        console.say(f"{finished} of {len(plan.shards)} shards are finished; going on.")
    total, left = (sum(s.source.stat().st_size for s in some) for some in (plan.shards, missing))
    title = f"{plan.name} to ArrayRecord"
    with console.progress_bar(total=total, done=total - left, unit="B", title=title) as bar:
        for shard in missing:
            source = tfrecord.read_tfrecord(shard.source, shard.num_records, on_bytes=bar.update)
            array_record.write_shard(shard.target, source)
    _write_metadata(plan)
    size = sum(shard.target.stat().st_size for shard in plan.shards)
    count = sum(shard.num_records for shard in plan.shards)
    console.say(
        f"Converted {plan.name}: {count:,} records in {len(plan.shards):,} shards, "
        f"{console.format_size(size)}, in {plan.target}.\n{_how_to_train(plan)}"
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
