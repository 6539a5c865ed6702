"""PASCAL VOC's objects in boxes, in the folders that are downloaded.

VOC: ``VOCdevkit/VOC2007`` of VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar.
"""

import functools
import pathlib
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from byol_jax.data import boxes, datasets, image_files, image_formats, pixel_targets, voc

BadImageError = image_formats.BadImageError

CLASSES = voc.CLASSES[1:]
_NUMBERS = {name: number for number, name in enumerate(CLASSES)}
MOST_BYTES = 5_000_000  # of a file; VOC's have some thousand


def load(data_dir: str, split: str, *, years: tuple[int, ...] = (2007,)) -> boxes.BoxSplit:
    """Opens a split, such as ``trainval`` or ``test``, of one year or of several together.

    Args:
      data_dir: holds VOCdevkit, or is the folder of a year.
      split: its name.
      years: of VOC.

    Raises:
      UsageError: a folder or list is missing; says what to download.
    """
    places = []
    for year in years:
        folder = voc.find_year(data_dir, year)
        names = voc.read_names(folder / "ImageSets" / "Main", split)
        places += [_place(folder, name) for name in names]
    about = f"{split} of VOC{' and '.join(map(str, years))}: {len(places):,} images with boxes."
    fingerprint = pixel_targets.fingerprint([place.image for place in places])
    records = boxes.AnnotatedFiles(places)
    data = datasets.RecordDataset(records, len(places), len(CLASSES), fingerprint, about=about)
    return boxes.BoxSplit(data, CLASSES)


def _place(folder: pathlib.Path, name: str) -> boxes.Place:
    image = folder / "JPEGImages" / f"{name}.jpg"
    path = folder / "Annotations" / f"{name}.xml"
    return boxes.Place(str(image), name, functools.partial(read, path))


def read(path: pathlib.Path) -> boxes.Annotation:
    """The objects in an XML file; VOC counts pixels from 1, and the last one belongs to the box.

    Raises:
      BadImageError: no such file, a broken or hostile one, an unknown class; names the file.
    """
    try:
        rows = [_object(node) for node in _parse(image_files.read(path)).iterfind("object")]
    except BadImageError as error:
        raise BadImageError(f"{path}: {error}") from None
    return boxes.make_annotation(rows, learns_difficult=True)


def _parse(data: bytes) -> ElementTree.Element:
    """The root of a document that declares nothing: entities could expand to gigabytes."""
    if len(data) > MOST_BYTES:
        raise BadImageError(f"{len(data):,} bytes, which no annotation has")

    def refuse(*_: object) -> None:
        raise BadImageError("declares a DOCTYPE, which no annotation needs and entities abuse")

    scanner = expat.ParserCreate()
    scanner.StartDoctypeDeclHandler = scanner.EntityDeclHandler = refuse
    try:
        scanner.Parse(data, True)
        root = ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, BadImageError):
            raise
        raise BadImageError(f"no XML: {error}") from None
    if root.tag != "annotation":
        raise BadImageError(f"holds <{root.tag[:40]}>, not VOC's <annotation>")
    return root


def _object(node: ElementTree.Element) -> tuple[np.ndarray, int, bool]:
    name = (node.findtext("name") or "").strip()
    if name not in _NUMBERS:
        raise BadImageError(f"an object of '{name[:40]}', which is none of VOC's classes")
    sides = [node.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        box = np.array([float(side or "") for side in sides])
    except ValueError:
        raise BadImageError(f"the box of a {name} is {sides}, not four numbers") from None
    if not np.isfinite(box).all():
        raise BadImageError(f"the box of a {name} is {sides}, not four numbers")
    return box - [1, 1, 0, 0], _NUMBERS[name], (node.findtext("difficult") or "0").strip() == "1"
