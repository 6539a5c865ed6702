"""The program as people run it: in processes of its own, killed, resumed, misused."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import PIL.Image
import psutil
import pytest

from configs import paper
from tests.support import documents, pixel_worlds

ROOT = pathlib.Path(__file__).parents[2]
SMALL = [
    "--config=configs/byol.py",
    "--config.batch_size=8",
    "--config.total_steps=60",
    "--config.log_every_steps=1",
    "--config.checkpoint_every_steps=5",
    "--config.probe.max_images=50",
    "--config.probe.every_steps=20",
    "--config.model.projector_hidden_size=16",
    "--config.model.predictor_hidden_size=16",
]
pytestmark = pytest.mark.slow


def start(*arguments, cwd=ROOT, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "byol_jax.main_loop", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(*arguments, cwd=ROOT):
    process = start(*arguments, cwd=cwd)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output + errors


def wait_for_step(workdir, step):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        path = workdir / "metrics.jsonl"
        if path.exists() and f'{{"step": {step},' in path.read_text():
            return
        time.sleep(0.005)
    raise TimeoutError(f"step {step} did not come")


def final_state(workdir, step=60):
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(workdir / "checkpoints" / str(step) / "state")


def metrics(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("train/images_per_second", None)
    return rows


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    status, text = finish(*SMALL, f"--workdir={workdir}")
    assert status == 0, text
    return workdir


def test_killed_twice_and_resumed_is_bit_identical(uninterrupted, tmp_path):
    for step in (17, 41):
        process = start(*SMALL, f"--workdir={tmp_path}")
        wait_for_step(tmp_path, step)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
    status, text = finish(*SMALL, f"--workdir={tmp_path}")
    assert status == 0 and "Resuming from" in text, text
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path), final_state(uninterrupted))
    assert metrics(tmp_path) == metrics(uninterrupted)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder without labels: forty smooth pictures and every kind of bad one."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "more").mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
        suffix = "jpg" if number % 2 else "png"
        coarse.resize((90, 70), 3).save(
            folder / ("more" if number % 3 else ".") / f"{number}.{suffix}"
        )
    whole = (folder / "3.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "wrong_extension.jpg").write_bytes((folder / "0.png").read_bytes())
    (folder / "text.png").write_text("not an image")
    PIL.Image.new("RGB", (1, 1)).save(folder / "one.png")
    PIL.Image.new("RGB", (30000, 2)).save(folder / "long.png")
    return folder


def on_photographs(folder):
    return [
        "--config=configs/byol.py:folder",
        f"--config.data.dir={folder}",
        "--config.data.image_size=32",
        "--config.data.max_bad_share=0.2",
        "--config.model.encoder=micro_resnet",
        "--config.model.stem=patch",
        "--config.total_steps=30",
        *(option for option in SMALL[1:] if "total_steps" not in option),
    ]


@pytest.fixture(scope="module")
def streamed(photographs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("streamed")
    status, text = finish(*on_photographs(photographs), f"--workdir={workdir}")
    assert status == 0 and "6 bad images were left out" in text, text
    return workdir


def test_a_folder_with_bad_images_is_learned_from_without_them(streamed):
    lines = (streamed / "bad_images.txt").read_text().splitlines()
    names = {pathlib.Path(line.split("\t")[0]).name for line in lines}
    expected = {"truncated.jpg", "empty.jpg", "wrong_extension.jpg", "text.png", "one.png"}
    assert len(lines) == 6 and names == expected | {"long.png"}
    assert metrics(streamed)[-2]["data/bad_images"] == 6


def test_killed_and_resumed_a_streamed_run_sees_the_same_crops(streamed, photographs, tmp_path):
    process = start(*on_photographs(photographs), f"--workdir={tmp_path}")
    wait_for_step(tmp_path, 17)
    process.kill()
    process.communicate()
    status, text = finish(*on_photographs(photographs), f"--workdir={tmp_path}")
    assert status == 0 and "Resuming from" in text, text
    assert metrics(tmp_path) == metrics(streamed)
    ours, theirs = final_state(tmp_path, 30), final_state(streamed, 30)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    bad = [set((run / "bad_images.txt").read_text().splitlines()) for run in (tmp_path, streamed)]
    assert bad[0] == bad[1]


def test_worker_processes_change_nothing_and_end_with_the_run(streamed, photographs, tmp_path):
    options = [*on_photographs(photographs), f"--workdir={tmp_path}"]
    options += ["--config.data.workers=2", "--config.data.threads=1"]
    process = start(*options, start_new_session=True)
    wait_for_step(tmp_path, 7)
    os.killpg(process.pid, signal.SIGINT)  # to the workers, too, as a terminal does
    output, errors = process.communicate(timeout=100)
    text = output + errors
    assert process.returncode == 0 and "and saved. Rerun" in text, text
    assert "Traceback" not in text and "leaked" not in text, text
    process = start(*options)
    wait_for_step(tmp_path, 17)
    process.kill()
    process.communicate(timeout=20)  # no worker keeps the pipes open
    status, text = finish(*options)
    assert status == 0, text
    assert metrics(tmp_path) == metrics(streamed)


def test_a_worker_that_is_gone_ends_the_run_with_a_message(photographs, tmp_path):
    options = [*on_photographs(photographs), f"--workdir={tmp_path}"]
    process = start(*options, "--config.data.workers=2", "--config.total_steps=100000")
    wait_for_step(tmp_path, 7)
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if "spawn_main" in " ".join(child.cmdline())).kill()
    output, errors = process.communicate(timeout=60)
    text = output + errors
    assert process.returncode == 1 and "exit code -9" in text and "data.workers" in text, text
    assert "Traceback" not in text, text


def test_worker_processes_read_packed_sets(photographs, tmp_path):
    pack = ["--config=configs/pack.py", f"--config.data.dir={photographs}"]
    pack += ["--config.data.max_bad_share=0.2", f"--config.output_dir={tmp_path}"]
    status, text = finish(*pack)
    assert status == 0, text
    packed = [f"--config.data.dir={tmp_path}", f"--config.data.name=tfds:{photographs.name}"]
    workers = ["--config.data.workers=2", "--config.data.threads=1", "--config.batch_size=4"]
    quick = ["--config.bench.step=False", "--config.bench.seconds=0.1"]
    bench = ["--config=configs/bench_input.py:folder", *packed, *workers, *quick]
    status, text = finish(*bench, f"--workdir={tmp_path / 'run'}")
    assert status == 0 and "2 workers" in text, text


def test_too_many_bad_images_stop_the_run_and_more_may_be_allowed(photographs, tmp_path):
    strict = [option for option in on_photographs(photographs) if "max_bad_share" not in option]
    status, text = finish(*strict, f"--workdir={tmp_path}")
    assert status != 0 and "Traceback" not in text, text
    assert re.findall(r"^  /.*photographs", text, re.MULTILINE), text
    status, text = finish(*strict, f"--workdir={tmp_path}", "--config.data.max_bad_share=0.2")
    assert status == 0, text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_exits_with_0_and_resumes(number, uninterrupted, tmp_path):
    process = start(*SMALL, f"--workdir={tmp_path}")
    wait_for_step(tmp_path, 7)
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0 and "Rerun the same command to resume" in errors, errors
    last = metrics(tmp_path)[-1]["step"]
    assert (tmp_path / "checkpoints" / str(last)).exists()  # not only every fifth
    status, text = finish(*SMALL, f"--workdir={tmp_path}")
    assert status == 0, text
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path), final_state(uninterrupted))


def test_a_collapsing_learning_rate_stops_with_advice(tmp_path):
    status, text = finish(
        *SMALL,
        f"--workdir={tmp_path}",
        "--config.optimizer.name=sgd",
        "--config.optimizer.sgd.base_learning_rate=1e30",
    )
    assert status == 1
    assert re.search(r"Error: \w+ of step \d+ is (nan|inf).*Last good checkpoint", text), text
    assert "Traceback" not in text


BAD = {
    "preset": (["--config=configs/byol.py:cifar"], "Did you mean 'cifar10'"),
    "key": (
        ["--config=configs/byol.py", "--config.batchsize=3"],
        "Unknown key in --config: 'batchsize'. Did you mean --config.batch_size?",
    ),
    "below": (
        ["--config=configs/byol.py", "--config.data.name.x=3"],
        "below a value there are no keys",
    ),
    "type": (["--config=configs/byol.py", "--config.batch_size=many"], "batch_size=many"),
    "file": (["--config=configs/boyl.py"], "configs/byol.py, configs/convert.py"),
    "flag": (["--confg=configs/byol.py"], "Did you mean --config=configs/byol.py?"),
    "no config": (["--config.batchsize=3"], "Did you mean --config.batch_size?"),
    "no effect": (["--config.optimizer.sgd.momentum=0.5"], "add --config.optimizer.name=sgd"),
    "argument": (["--config=configs/byol.py", "seed=1"], "Unexpected arguments: seed=1"),
    "encoder": (["--config=configs/byol.py", "--config.model.encoder=resnet51"], "resnet50"),
    "not prepared": (
        ["--config=configs/byol.py:cifar10", "--config.data.dir=/nowhere"],
        "pip install '.[prepare]'",
    ),
    "zero steps": (["--config=configs/byol.py", "--config.total_steps=0"], "above 0"),
    "no checkpoint": (["--config=configs/knn.py"], "--config.checkpoint=RUN"),
    "other checkpoint": (
        ["--config=configs/embed.py", "--config.checkpoint=/nowhere"],
        "No checkpoint at /nowhere",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_end_in_one_message_and_status_2(case, tmp_path):
    arguments, message = BAD[case]
    status, text = finish(*arguments, f"--workdir={tmp_path / 'run'}")
    assert status == 2 and message in text, text
    assert "Traceback" not in text
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    status, text = finish(*SMALL, f"--workdir={tmp_path / 'file'}")
    assert status == 2 and "Cannot write to the workdir" in text and "Traceback" not in text


def documented_commands():
    for line in documents.commands():
        words = shlex.split(line, comments=True)
        if "byol_jax.main_loop" in words:
            yield words[words.index("byol_jax.main_loop") + 1 :]


TFRECORD_SET = ROOT / "tests" / "golden" / "tfrecord_set"
TINY = [
    "--config.total_steps=1",
    "--config.batch_size=4",
    "--config.data.name=patterns",
    "--config.data.dir=",
    "--config.data.train_split=train",
    "--config.data.eval_split=test",
    "--config.data.image_size=32",
    "--config.model.encoder=micro_resnet",
    "--config.probe.max_images=40",
]


QUICK = {
    "knn": [],
    "export": [],
    "gallery": [],
    "linear_eval": ["--config.total_epochs=0.2", "--config.base_learning_rates=(0.2, 0.1)"],
    "semi_supervised": ["--config.epochs=(0.1,)", "--config.base_learning_rates=(0.2, 0.1)"],
    "transfer": ["--config.lambdas.count=3"],
}


PIXELS = {
    "segmentation": [
        "--config.learning_rates=(0.1, 0.01)",
        "--config.output_stride=4",
        "--config.crop_size=33",
    ],
    "depth": ["--config.input_height=32", "--config.input_width=40", "--config.up_channels=(8, 4)"],
}


def smaller_set_of_pixels(task, arguments, root):
    """Flags for a drawn set in the layout that the command expects."""
    if "--config.data.name=folder" in arguments:
        pixel_worlds.write_folder(root, count=30, classes=2)
        masks = {"segmentation": "masks", "depth": "depths"}[task]
        return [f"--config.data.images={root}/images", f"--config.data.{masks}={root}/{masks}"]
    if task == "depth":
        pytest.importorskip("h5py")
        pixel_worlds.write_nyu(root)
    else:
        names = [f"n{i:02}" for i in range(14)]
        pixel_worlds.write_voc(root, train=names[:6], val=names[6:10], extra=names[10:])
    return [f"--config.data.dir={root}"]


def smaller_sets_of_the_paper(root):
    """Flags for drawn sets of ImageNet's layout, for transfer, and of VOC; few steps on each."""
    for place in ("imagenet/train", "imagenet/val", "aircraft/train", "aircraft/test"):
        for number in range(24):
            image = pixel_worlds.draw(number)[0]
            pixel_worlds.save_image(root / place / "ab"[number % 2] / f"{number}.png", image)
    smaller_set_of_pixels("segmentation", (), root)
    options = paper.get_config("small").options.to_dict() | {"transfer": "lambdas.count=2"}
    options["transfer"] += " data.validation_split= max_iterations=9"
    only = "linear,semi_supervised_10percent,transfer,segmentation,depth"
    given = [f"--config.options.{name}={text}" for name, text in options.items()]
    return [f"--config.data.dir={root}", f"--config.only={only}", *given]


def smaller(arguments, photographs, checkpoint, output):
    """What to add to a command of a guide, so that it takes seconds and needs no data set."""
    task = next(a for a in arguments if a.startswith("--config=")).split("/")[1].split(".")[0]
    if task == "detection" or any("detectron2" in argument for argument in arguments):
        pytest.skip("tests/detection/torch_test.py runs it")
    if any("accumulate" in argument for argument in arguments):
        return [*TINY, "--config.batch_size=32"]  # four micro-batches on each of four devices
    if "--config.checkpoint=some/export" in arguments:
        return [*TINY, f"--config.checkpoint={checkpoint}"]
    if any("data.labels" in argument for argument in arguments):
        where = ["--config.data.name=folder", f"--config.data.dir={photographs}"]
        splits = [f"--config.data.{name}_split=all" for name in ("train", "eval")]
        return [*TINY, *where, *splits, "--config.data.max_bad_share=0.5"]
    if task in ("byol", "bench_input", "preview", "estimate"):
        seconds = {"bench_input": "bench", "estimate": "estimate"}.get(task)
        return TINY + ([f"--config.{seconds}.seconds=0.1"] if seconds else [])
    if task == "study":
        return ["--config.dry_run"]
    if task in QUICK:
        return [f"--config.checkpoint={checkpoint}", *QUICK[task]]
    if task in PIXELS:
        short = [f"--config.checkpoint={checkpoint}", "--config.total_steps=2"]
        short += ["--config.batch_size=4", *PIXELS[task]]
        return short + smaller_set_of_pixels(task, arguments, output / "set")
    if task == "paper":
        return [f"--config.checkpoint={checkpoint}", *smaller_sets_of_the_paper(output / "sets")]
    if task in ("embed", "curate", "search"):
        where = [f"--config.checkpoint={checkpoint}", f"--config.data.dir={photographs}"]
        query = [f"--config.query={photographs}/0.png"] if task == "search" else []
        return [*where, *query, "--config.data.max_bad_share=0.2"]
    if task == "predict":
        evaluate = ["--config=configs/linear_eval.py", f"--config.checkpoint={checkpoint}"]
        result = output / "result"
        assert finish(*evaluate, *QUICK["linear_eval"], f"--workdir={result}")[0] == 0
        return [f"--config.checkpoint={result}", f"--config.data.dir={photographs}"]
    where = [f"--config.output_dir={output}"]
    if task == "pack" and not any("data.name" in a for a in arguments):
        return [*where, f"--config.data.dir={photographs}", "--config.data.max_bad_share=0.2"]
    records = TFRECORD_SET
    if task == "pack":
        records = output / "converted"
        convert = ["--config=configs/convert.py", "--config.data.name=tiny_shapes"]
        place = [f"--config.data.dir={TFRECORD_SET}", f"--config.output_dir={records}"]
        assert finish(*convert, *place)[0] == 0
    name = "tfds:tiny_shapes" if task == "pack" else "tiny_shapes"
    return [*where, f"--config.data.name={name}", f"--config.data.dir={records}"]


@pytest.mark.parametrize("arguments", list(documented_commands()), ids=" ".join)
def test_commands_of_readme_and_guides_run(arguments, photographs, uninterrupted, tmp_path):
    """As they stand, but for fewer steps on smaller images, and another checkpoint."""
    arguments = [a for a in arguments if not a.startswith("--workdir")]
    added = smaller(arguments, photographs, uninterrupted, tmp_path)
    status, text = finish(*arguments, *added, f"--workdir={tmp_path / 'run'}")
    assert status == 0, text
    measured = [tmp_path / "run" / name for name in ("metrics.jsonl", "result.json")]
    has_page = (tmp_path / "run" / "report.html").exists()
    assert has_page == any(path.exists() for path in measured), text
