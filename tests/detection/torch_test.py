"""Detection with PyTorch: the network is the encoder's own; runs are resumed; results are whole.

They need torch and torchvision: ``make test-torch``.
"""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision", exc_type=ImportError)

from byol_jax import config as config_lib  # noqa: E402
from byol_jax.checkpoints import encoders  # noqa: E402
from byol_jax.detection import network, training  # noqa: E402
from byol_jax.evaluation import results, resume  # noqa: E402
from byol_jax.models import encoder_spec  # noqa: E402
from byol_jax.report import cli  # noqa: E402
from byol_jax.tasks import detection  # noqa: E402
from configs import detection as config_file  # noqa: E402
from tests.cli import config_test  # noqa: E402
from tests.support import box_worlds, golden_data  # noqa: E402
from tests.support.photos import photos  # noqa: E402
from tests.tasks import end_to_end_test  # noqa: E402
from tests.tasks.export_test import write_encoder  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.slow]
torch.set_num_threads(1)  # of the machine's processors, of which other tests need some
SIZES = network.Sizes((64,), 64, 96, (16, 32, 64))


def write(folder, **options):
    card = encoder_spec.EncoderSpec("tiny_resnet", image_size=64)._replace(**options)
    trees = [
        golden_data.formula_tree(shapes, "torch", counter=9) for shapes in encoder_spec.shapes(card)
    ]
    return write_encoder(folder, card, trees)


@pytest.fixture(scope="module", params=["same", "torch"])
def encoder(request, tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("of") / "encoder", padding=request.param)
    return encoders.load_encoder(str(folder))


def make(encoder, is_frozen=False):
    options = {"sizes": SIZES, "bn_decay_rate": 0.9, "seed": 0}
    return network.make(encoder, num_classes=3, is_frozen=is_frozen, **options)


def test_backbone_and_head_are_the_encoder_padded_as_it_was_trained(encoder):
    pixels = photos(64)[:2]
    model = make(encoder).eval()
    with torch.inference_mode():
        images, _ = model.transform([network.to_image(image, "cpu") for image in pixels])
        maps = model.backbone(images.tensors)
        whole = model.roi_heads.box_head._pool(model.backbone.encoder.groups()[-1](maps))
    expected = encoder.maps(pixels)[-2]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(maps.permute(0, 2, 3, 1), expected, atol=1e-5 * scale)
    np.testing.assert_allclose(whole, encoder.encode(pixels), atol=1e-4 * scale)


def test_images_are_normalized_once_and_padded_with_the_mean_color(encoder):
    card, model = encoder.card, make(encoder).eval()
    mean = torch.tensor(card.mean).reshape(3, 1, 1).expand(3, 40, 64)
    images, _ = model.transform([mean, torch.zeros(3, 64, 70)])
    assert not any(side % 32 for side in images.tensors.shape[2:])
    assert float(images.tensors[0].abs().max()) < 1e-6
    black = -np.array(card.mean) / np.array(card.std)
    np.testing.assert_allclose(images.tensors[1][:, 0, 0], black, rtol=1e-5)


def test_every_cell_has_fifteen_anchors_16_pixels_apart(encoder):
    sizes = SIZES._replace(anchors=(32, 64, 128, 256, 512))
    model = network.make(
        encoder, num_classes=3, sizes=sizes, bn_decay_rate=0.9, is_frozen=False, seed=0
    )
    maps = torch.zeros(1, 8, 4, 6)
    images, _ = model.transform([torch.zeros(3, 64, 96)])
    (anchors,) = model.rpn.anchor_generator(images, [maps])
    assert anchors.shape == (4 * 6 * 15, 4)
    centers = (anchors[:, :2] + anchors[:, 2:]).reshape(4, 6, 15, 2) / 2
    np.testing.assert_allclose(centers[2, 3], np.tile([48, 32], (15, 1)))


def test_regions_are_aligned_as_the_golden_values(monkeypatch):
    monkeypatch.setattr(network, "REGION", 7)
    golden = golden_data.load("dense")
    features = torch.tensor(golden["roi|features"]).permute(0, 3, 1, 2).float()
    rois = torch.tensor(golden["roi|rois"]).float()
    scale = float(golden["roi|scale"])
    rois[:, 1:] *= scale * network.STRIDE  # the same cells of a map of stride 16
    found = network.Regions(["0"], 7, 0)({"0": features}, rois, None)
    found = found.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, golden["roi|aligned|ratio_adaptive|size_7"], atol=3e-5)
    assert np.abs(found - golden["roi|not_aligned|ratio_adaptive|size_7"]).max() > 0.01


def test_a_frozen_encoder_stays_as_it_is(encoder):
    model = make(encoder, is_frozen=True)
    network.set_training(model, is_frozen=True)
    before = {k: x.clone() for k, x in model.backbone.state_dict().items()}
    groups = network.parameter_groups(model, 0.1)
    losses = model([torch.rand(3, 64, 64)], [target()])
    sum(losses.values()).backward()
    assert all(p.grad is not None for group in groups for p in group["params"])
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(torch.equal(x, before[k]) for k, x in model.backbone.state_dict().items())


def target():
    return {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}


def test_rates_rise_and_drop_twice():
    recipe = training.Recipe(240, 1.0, 10, 0.0, 1, False)
    rates = [training.rate_at(step, recipe) for step in (0, 5, 10, 179, 180, 219, 220)]
    np.testing.assert_allclose(rates, [0.001, 0.5005, 1, 1, 0.1, 0.1, 0.01])


def test_a_mirrored_image_has_mirrored_boxes():
    pixels = np.zeros((4, 10, 3), np.uint8)
    pixels[1:3, 2:5] = 255
    box = np.array([[2, 1, 5, 3]], np.float32)
    objects = detection.boxes.make_annotation([(box[0], 0, False)], learns_difficult=True)
    example = detection.boxes.Example(0, pixels, objects)
    made = [training.make_example(example, np.random.default_rng(seed)) for seed in range(8)]
    assert len({m["box"].tobytes() for m in made}) == 2
    for found in made:
        left, top, right, bottom = found["box"][0].astype(int)
        assert found["pixels"][top:bottom, left:right].all() and found["pixels"].sum() == 6 * 765


# From end to end.


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    names = [f"{i:06}" for i in range(20)]
    size = {"height": 64, "width": 80}
    box_worlds.write_voc(root, trainval=names[:14], test=names[14:], **size)
    box_worlds.write_voc(root, trainval=names[:2], test=names[2:4], year=2012, **size)
    box_worlds.write_coco(root / "coco", train=range(8), test=range(8, 12), **size)
    write(root / "encoder")
    return root


SMALL = {
    "batch_size": 4,
    "accumulate": 2,
    "total_steps": 3,
    "warmup_steps": 1,
    "learning_rate": 0.01,
    "image_sizes": (64,),
    "test_image_size": 64,
    "longest_side": 96,
    "anchor_sizes": (16, 32, 64),
    "regions": 16,
    "test_regions": 50,
    "bootstrap_resamples": 20,
}


def measure(workdir, world, preset="", **overrides):
    config = config_file.get_config(preset)
    paths = {"checkpoint": str(world / "encoder"), "data.dir": str(world)}
    config.update_from_flattened_dict(SMALL | paths | overrides)
    detection.run(config, workdir)
    return json.loads((workdir / "result.json").read_text())


@pytest.fixture(scope="module")
def result(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detection")
    return measure(folder, world, seeds=2) | {"folder": folder}


def test_the_result_says_everything_about_itself(result):
    names = {"AP50", "AP50_area", "coco_AP", "coco_AP50", "coco_AP75"}
    assert set(result["accuracy"]) == set(result["std"]) == names
    for found in result["per_seed"]:
        assert set(found["interval_95"]) == names and len(found["AP50_of_class"]) == 20
        assert found["num_images"] == {"learned from": 14, "evaluated": 6, "bad": 0}
    assert set(result["packages"]) == {"torch", "torchvision"}
    assert "AP50: aeroplane" in results.describe(result, detection._table)
    assert cli.write_for(result["folder"]).read_text().count("prediction: ") >= 6
    assert not (result["folder"] / resume.FOLDER).exists()


class Killed(BaseException):
    """What ends a process, as far as a test can let it."""


@pytest.mark.parametrize("step", [1, 4])
def test_a_run_that_is_killed_goes_on_to_the_same_numbers(
    step, world, result, tmp_path, monkeypatch
):
    """In the first training and in the second; saved after every step, and killed in one."""
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0.0)
    done, advance = [], training._advance

    def counting(*args):
        if len(done) == step:
            raise Killed
        done.append(args[4])
        advance(*args)

    monkeypatch.setattr(training, "_advance", counting)
    with pytest.raises(Killed):
        measure(tmp_path, world, seeds=2)
    step = 100
    measured = measure(tmp_path, world, seeds=2)
    assert len(done) == 6  # nothing is done twice
    for key in ("accuracy", "std"):
        assert measured[key] == pytest.approx(result[key], abs=1e-12)


def test_another_order_of_presets_and_sets(world, tmp_path):
    found = measure(tmp_path / "07+12", world, "voc0712", total_steps=1)
    assert found["num_images"]["learned from"] == 16
    coco = {"data.name": "coco", "data.dir": str(world / "coco"), "weights": "random"}
    found = measure(tmp_path / "coco", world, "frozen", total_steps=1, **coco)
    assert list(found["AP50_of_class"]) == ["aeroplane", "bicycle", "bird"]
    assert "the new layers alone" in found["protocol"]


def test_bad_images_are_counted_up_to_a_share(world, tmp_path):
    names = [f"{i:06}" for i in range(20)]
    voc = box_worlds.write_voc(tmp_path, trainval=names[:16], test=names[16:], height=64, width=80)
    text = (voc / "Annotations" / "000001.xml").read_text()
    (voc / "Annotations" / "000001.xml").write_text("<!DOCTYPE a>" + text)
    (voc / "JPEGImages" / "000017.jpg").write_bytes(b"nothing")
    with pytest.raises(config_lib.UsageError, match="max_bad_share"):
        measure(tmp_path / "out", world, **{"data.dir": str(tmp_path)})
    assert not (tmp_path / "out").exists()
    keys = {"data.dir": str(tmp_path), "data.max_bad_share": 0.1, "total_steps": 1}
    found = measure(tmp_path / "out", world, **keys)
    assert found["num_images"] == {"learned from": 15, "evaluated": 3, "bad": 2}


def test_every_key_is_used(world, tmp_path):
    config = config_file.get_config()
    paths = {"checkpoint": str(world / "encoder"), "data.dir": str(world), "total_steps": 1}
    config.update_from_flattened_dict(SMALL | paths)
    read = set()
    detection.run(config_test.Recording(config, read), tmp_path)
    assert set(config_lib.flatten(config.to_dict())) - read - {"task"} == {"preset"}


def of_detection():
    for arguments in end_to_end_test.documented_commands():
        words = " ".join(arguments)
        if "configs/detection.py" in words or "detectron2" in words:
            yield pytest.param(arguments, id=words)


@pytest.mark.parametrize("arguments", list(of_detection()))
def test_commands_of_the_guide_run(arguments, world, tmp_path):
    """As they stand, but for fewer steps on smaller images, and another checkpoint."""
    if "configs/export.py" in " ".join(arguments):
        encoder = write(tmp_path / "encoder", encoder="resnet50", image_size=32)
        added = []
    else:
        values = {key: str(value).replace(" ", "") for key, value in SMALL.items()}
        encoder, added = world / "encoder", [f"--config.{k}={v}" for k, v in values.items()]
        is_coco = "--config.data.name=coco" in arguments
        added.append(f"--config.data.dir={world / 'coco' if is_coco else world}")
    place = [f"--config.checkpoint={encoder}", f"--workdir={tmp_path / 'out'}"]
    status, text = end_to_end_test.finish(*arguments, *added, *place)
    assert status == 0, text
    name = "detectron2.yaml" if "configs/export.py" in " ".join(arguments) else "report.html"
    assert (tmp_path / "out" / name).exists(), text


def test_a_stem_for_small_images_is_refused(world, tmp_path):
    write(tmp_path / "encoder", stem="cifar")
    with pytest.raises(config_lib.UsageError, match="stem 'cifar'.*stride 4.*model.stem=imagenet"):
        measure(tmp_path / "out", world, checkpoint=str(tmp_path / "encoder"))
    assert not (tmp_path / "out").exists()
