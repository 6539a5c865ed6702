"""What can be packed: the images of a folder and of TFDS sets, with labels and file names."""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from byol_jax import config as config_lib
from byol_jax.data import datasets, image_folder, tfds_source
from byol_jax.data.prepare import array_record
from byol_jax.workdir import console

UsageError = config_lib.UsageError
_NAME = re.compile(r"[a-z][a-z0-9_]*")  # of a set, a part of what TFDS allows


class Split(Protocol):
    """Images of one split."""

    num_bytes: int  # on disk
    fingerprint: str  # differs if the images do, as far as that can be known cheaply

    def __len__(self) -> int: ...

    def example(self, index: int) -> dict[str, Any]:
        """An encoded image with its label and file name, if there are any."""
        ...

    def name(self, index: int) -> str:
        """What to call the image in a message."""
        ...


class Source(NamedTuple):
    """Something to pack.

    Attributes:
      info: of the set to write, as in ``dataset_info.json``, but for its splits.
      features: of TFDS, of the set to write.
      splits: by name.
      below: where the set will be, below the folder of sets.
      default_output: folder of sets to write to if none is given.
    """

    info: dict[str, Any]
    features: Any
    splits: Mapping[str, Split]
    below: pathlib.Path
    default_output: pathlib.Path


def open_source(name: str, data_dir: str, output_name: str) -> Source:
    """Opens what is to be packed.

    Args:
      name: ``folder``, or a TFDS set as in `datasets.load`.
      data_dir: of images, or of prepared sets.
      output_name: of the set that a folder becomes; empty: made from the folder's name.

    Raises:
      UsageError: nothing there to pack, a set that is small enough, a name that TFDS forbids.
    """
    if name == "folder":
        return _open_folder(data_dir, output_name)
    if output_name:
        raise UsageError(
            "--config.output_name is for folders: a TFDS set keeps its name, so that configs work "
            "with it. Give another --config.output_dir instead."
        )
    return _open_tfds(name, data_dir)


class _Folder:
    def __init__(self, listing: image_folder.Listing, *, has_labels: bool):
        self._listing, self._has_labels = listing, has_labels
        self._files = image_folder.Files(listing)
        self.fingerprint = listing.fingerprint

    def __len__(self) -> int:
        return len(self._files)

    @property
    def num_bytes(self) -> int:
        return sum(map(_size, (self._listing.root / name for name in self._listing.files)))

    def example(self, index: int) -> dict[str, Any]:
        data, label = self._files.read(index)
        example = {"file_name": os.fsencode(self._listing.files[index]), "image": data}
        return example | {"label": label} if self._has_labels else example

    def name(self, index: int) -> str:
        return self._files.name(index)


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # packing will name it
        return 0


def _open_folder(data_dir: str, output_name: str) -> Source:
    import tensorflow_datasets as tfds

    listings = _list_splits(data_dir)
    root = pathlib.Path(os.path.abspath(os.path.expanduser(data_dir)))
    name = _set_name(root, output_name, tfds.list_builders(with_community_datasets=False))
    for listing in listings.values():
        console.say(listing.about)
    classes = [_printable(label) for label in image_folder.find_classes(data_dir)]
    features = {"file_name": tfds.features.Text(), "image": _image_feature(tfds)}
    if classes:
        features["label"] = tfds.features.ClassLabel(names=classes)
    info = {"name": name, "version": "1.0.0", "description": "Images of a folder."}
    return Source(
        info,
        tfds.features.FeaturesDict(features),
        {split: _Folder(listings[split], has_labels=bool(classes)) for split in listings},
        pathlib.Path(name, "1.0.0"),
        root.with_name(f"{root.name}_packed"),
    )


def _list_splits(data_dir: str) -> dict[str, image_folder.Listing]:
    splits = image_folder.find_splits(data_dir)
    if splits:
        return {split: image_folder.scan(data_dir, split) for split in splits}
    everything = image_folder.scan(data_dir, "all")
    if not everything.classes:
        return {"train": everything}
    try:
        return {split: image_folder.scan(data_dir, split) for split in ("train", "test")}
    except image_folder.EmptySplitError:
        return {"train": everything}


def _set_name(root: pathlib.Path, output_name: str, taken: list[str]) -> str:
    if output_name:
        if not _NAME.fullmatch(output_name):
            raise UsageError(
                f"--config.output_name={output_name} cannot be the name of a set: it has to begin "
                "with a small letter and to go on with small letters, digits and underscores."
            )
        if output_name in taken:
            raise UsageError(
                f"TFDS has a set '{output_name}' of its own; choose another --config.output_name."
            )
        return output_name
    name = re.sub(r"[^a-z0-9]+", "_", root.name.lower()).strip("_")
    name = name if _NAME.fullmatch(name) else f"images_{name}".strip("_")
    return f"{name}_packed" if name in taken else name


def _printable(name: str) -> str:
    """Names of folders can be bytes that are no text; names of classes cannot."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\n", " ")


def _image_feature(tfds: Any) -> Any:
    return tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")


class _Tfds:
    def __init__(self, tfds_set: tfds_source.Set, split: str, keys: list[str]):
        import tensorflow_datasets as tfds

        builder = tfds_set.builder
        self._keys = keys
        self._source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        self._name = f"{tfds_set.name}/{split}"
        self.num_bytes = builder.info.splits[split].num_bytes
        self.fingerprint = builder.info.full_name

    def __len__(self) -> int:
        return len(self._source)

    def example(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        return {key: example[key] for key in self._keys}

    def name(self, index: int) -> str:
        file_name = self._source[index].get("file_name", b"").decode(errors="replace")
        return f"{self._name}[{index}] ({file_name})" if file_name else f"{self._name}[{index}]"


def _open_tfds(name: str, data_dir: str) -> Source:
    import tensorflow_datasets as tfds

    bare = name.removeprefix("tfds:")
    if name == "patterns" or (bare == name and name not in datasets.DATASETS):
        datasets.load(name, "train")  # an unknown name ends here
        raise UsageError(f"{name} is part of the program: there is nothing to pack.")
    tfds_set = tfds_source.open_set(bare, data_dir)
    info = tfds_set.builder.info
    sizes = {split: found.num_examples for split, found in info.splits.items()}
    largest = max(sizes, key=sizes.__getitem__)
    whole = f"{largest}[:100%]"  # by no name of the reference's, which hold images out
    if isinstance(datasets.load(name, whole, data_dir=data_dir), datasets.ArrayDataset):
        raise UsageError(f"{name} is small already: it is read into memory and needs no packing.")
    features = {"image": _image_feature(tfds)}
    features |= {"file_name": info.features["file_name"]} if "file_name" in info.features else {}
    features |= {"label": info.features["label"]} if tfds_set.num_classes else {}
    place = pathlib.Path(os.path.abspath(tfds_set.builder.data_dir))
    below = pathlib.Path(*place.parts[-3 if info.config_name else -2 :])
    root = place.parents[len(below.parts) - 1]
    old = json.loads((place / array_record.INFO).read_text())
    return Source(
        {key: old[key] for key in old if key not in ("splits", "alternativeFileFormats")},
        tfds.features.FeaturesDict(features),
        {split: _Tfds(tfds_set, split, list(features)) for split in sizes if sizes[split]},
        below,
        root.with_name(f"{root.name}_packed"),
    )
