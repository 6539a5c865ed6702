"""Copies a folder of classes into one of splits: python split.py SOURCE TUNE FINAL.

By a hash of its name a fifth of the images is the test split. TUNE gets the rest as train and
validation, FINAL all but the test split as train, and the test split, which TUNE never sees.
"""

import hashlib
import pathlib
import shutil
import sys


def main(source: str, tune: str, final: str) -> None:
    """Copies every file to where its split belongs."""
    for path in sorted(path for path in pathlib.Path(source).rglob("*") if path.is_file()):
        name = path.relative_to(source).as_posix()
        place = hashlib.sha256(name.encode()).digest()[0]
        split = "test" if place < 52 else "validation" if place < 100 else "train"
        copies = [(final, "test" if split == "test" else "train")]
        if split != "test":
            copies.append((tune, split))
        for top, part in copies:
            target = pathlib.Path(top) / part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
