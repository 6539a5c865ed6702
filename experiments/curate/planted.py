"""What is planted among the images of a folder, and how much of it configs/curate.py finds.

    python experiments/curate/planted.py RUN IMAGES SCRATCH

IMAGES has a folder for each class. 2,000 of its images are copied to SCRATCH, with 50
near-duplicates and with 5 % of the labels changed; nothing else of it is written to.
"""

import csv
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image

IMAGES, PLANTED, WRONG = 2000, 50, 0.05


def main() -> None:
    run, source, scratch = map(pathlib.Path, sys.argv[1:])
    rng = np.random.default_rng(1)
    files = sorted(path for path in source.glob("*/*") if path.is_file())
    files = [files[i] for i in rng.permutation(len(files))[:IMAGES]]
    near, wrong = scratch / "near", scratch / "wrong"
    pairs = plant_near_duplicates(files, near, rng)
    rows = curate(run, near, scratch / "near_result")
    found = {frozenset((row["file"], row["duplicate_of"])) for row in rows if row["duplicate_of"]}
    print(f"near-duplicates: {len(found)} pairs, {len(found & pairs)} of {len(pairs)} planted ones")
    names = plant_wrong_labels(files, wrong, rng)
    rows = [row for row in curate(run, wrong, scratch / "wrong_result") if row["label_margin"]]
    rows.sort(key=lambda row: float(row["label_margin"]))
    for share in (0.05, 0.1, 0.2):
        first = {row["file"] for row in rows[: round(share * len(rows))]}
        print(f"labels: {len(names & first) / len(names):.1%} of them in the first {share:.0%}")


def copy(files: list[pathlib.Path], folder: pathlib.Path) -> list[str]:
    """Copies files into a folder, which must be new, under the folders of their classes."""
    folder.mkdir(parents=True)
    names = [f"{path.parent.name}/{path.name}" for path in files]
    for path, name in zip(files, names, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
    return names


def plant_near_duplicates(
    files: list[pathlib.Path], folder: pathlib.Path, rng: np.random.Generator
) -> set[frozenset[str]]:
    """Adds images resized to 60 %, recompressed at quality 50, cropped by 5 % of each side."""
    names, pairs = copy(files, folder), set()
    for number, index in enumerate(rng.permutation(len(files))[:PLANTED]):
        image = PIL.Image.open(files[index]).convert("RGB")
        (width, height), quality = image.size, 50 if number % 3 == 1 else 90
        if number % 3 == 0:
            image = image.resize((round(0.6 * width), round(0.6 * height)))
        elif number % 3 == 2:
            wide, high = round(0.95 * width), round(0.95 * height)
            left, top = rng.integers(0, width - wide + 1), rng.integers(0, height - high + 1)
            image = image.crop((left, top, left + wide, top + high))
        name = f"{files[index].parent.name}/planted_{number}.jpg"
        image.save(folder / name, quality=quality)
        pairs.add(frozenset((name, names[index])))
    return pairs


def plant_wrong_labels(
    files: list[pathlib.Path], folder: pathlib.Path, rng: np.random.Generator
) -> set[str]:
    """Moves 5 % of the images to the folder of another class, drawn evenly."""
    names = copy(files, folder)
    classes = sorted({path.parent.name for path in files})
    moved = set()
    for index in rng.permutation(len(files))[: round(WRONG * len(files))]:
        others = [name for name in classes if name != files[index].parent.name]
        target = f"{others[rng.integers(len(others))]}/moved_{files[index].name}"
        (folder / names[index]).rename(folder / target)
        moved.add(target)
    return moved


def curate(run: pathlib.Path, images: pathlib.Path, workdir: pathlib.Path) -> list[dict[str, str]]:
    """The rows of curation.csv."""
    flags = [f"--config.checkpoint={run}", "--config.data.name=folder", f"--workdir={workdir}"]
    command = [sys.executable, "-m", "byol_jax.main_loop", "--config=configs/curate.py", *flags]
    subprocess.run([*command, f"--config.data.dir={images}"], check=True)
    with (workdir / "curation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
