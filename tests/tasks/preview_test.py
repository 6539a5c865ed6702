"""What the preview shows: strengths, both views of each image, images of any shape."""

import colorsys

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from byol_jax import config as config_lib
from byol_jax.tasks import preview
from byol_jax.training import settings
from configs import preview as preview_config
from tests.support.pages import EVIL, Elements
from tests.support.samples import drawn_picture, random_images

FOLDER = {"data.name": "folder", "data.image_size": 32, "data.eval_split": "all"}
FOLDER |= {"data.train_split": "all", "data.mean": (0.5,) * 3, "data.std": (0.5,) * 3}


def made(title, image, level):
    """One pixel after one augmentation of the default config alone, and the strength in words."""
    augment = config_lib.freeze(settings.Augment, preview_config.get_config().augment)
    changes = {change.title: change for change in preview.changes(augment)}
    changed, words = changes[title].apply(jnp.asarray(image[None]), level)
    return np.asarray(changed[0, 0, 0]), words


def test_each_augmentation_goes_from_nothing_to_its_strongest():
    """Strengths are those of configs/byol.py; colors by Python's own HSV."""
    image = 0.3 + 0.4 * random_images(1, 8, 8)[0]
    pixel, mean = image[0, 0], image.mean((0, 1))
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel.tolist())
    strongest = {
        "brightness up, 0.2, p = 1": (pixel + 0.2, "+0.2"),
        "brightness down, 0.2, p = 1": (pixel - 0.2, "-0.2"),
        "contrast up, 0.4, p = 1": (mean + 1.4 * (pixel - mean), "× 1.4"),
        "contrast down, 0.4, p = 1": (mean + 0.6 * (pixel - mean), "× 0.6"),
        "saturation down, 0.8, p = 1": (
            colorsys.hsv_to_rgb(hue, 0.2 * saturation, value),
            "× 0.2",
        ),
        "hue up, 0.5, p = 1": (colorsys.hsv_to_rgb((hue + 0.5) % 1, saturation, value), "+0.5"),
        "flip, p = 0.5": (image[0, -1], "on"),
        "solarize, 0.5, p = 0.2, view 2 only": (np.where(pixel < 0.5, pixel, 1 - pixel), "on"),
    }
    for title, (expected, words) in strongest.items():
        np.testing.assert_allclose(made(title, image, 0.0)[0], pixel, atol=1e-5)
        changed, said = made(title, image, 1.0)
        np.testing.assert_allclose(changed, expected, atol=1e-5, err_msg=title)
        assert said == words


def test_what_changes_nothing_is_named_and_not_shown():
    """Colors of gray images; everything else is there with the key of its strength."""
    augment = config_lib.freeze(settings.Augment, preview_config.get_config().augment)
    gray = np.repeat(drawn_picture(24, 24)[..., :1], 3, axis=-1)
    *rows, (title, cells) = preview._alone(augment, [gray], image_size=16)
    assert title.startswith("Without effect on these images, which are gray: saturation up")
    assert "hue down" in title and "grayscale" in title and not cells
    shown = [title for title, cells in rows if cells]
    assert "brightness up, 0.2, p = 1 · augment.view[12].brightness" in shown
    only = "solarize, 0.5, p = 0.2, view 2 only · augment.view2.solarize_probability"
    assert only in shown and not any("hue" in title for title in shown)


@pytest.fixture
def odd_folder(tmp_path):
    """Grayscale, alpha, tiny, very wide, very tall, 16 bits; one damaged; names for mischief."""
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    (folder / "$\\b$").mkdir()
    evil = EVIL.replace("/", "")
    picture = PIL.Image.fromarray(drawn_picture(60, 80))
    picture.convert("L").save(folder / "a" / "gray.png")
    rgba = picture.copy()
    rgba.putalpha(128)
    rgba.save(folder / "a" / f"{evil}.png")
    picture.resize((9, 8)).save(folder / "a" / "tiny.png")
    picture.resize((900, 30)).save(folder / "$\\b$" / "wide.jpg")
    picture.resize((20, 700)).save(folder / "$\\b$" / "tall.png")
    PIL.Image.fromarray(np.uint16(257) * np.uint16(drawn_picture()[..., 0])).save(
        folder / "$\\b$" / "deep.png"
    )
    (folder / "a" / "damaged.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.mark.slow
def test_images_of_any_kind_are_shown_with_both_views_and_damaged_ones_named(
    odd_folder, tmp_path, capsys
):
    config = preview_config.get_config("folder")
    overrides = FOLDER | {"data.dir": str(odd_folder), "data.max_bad_share": 0.5}
    config.update_from_flattened_dict(overrides)
    preview.run(config, tmp_path / "out")
    text = (tmp_path / "out" / "preview.html").read_text()
    alts = [a["alt"] for tag, a in Elements(text).tags if tag == "img"]
    for name in ("gray", "tiny", "wide", "tall", "deep", EVIL.replace("/", "")):
        assert sum(f"{name}." in alt for alt in alts) == 3, name
    assert len([alt for alt in alts if alt.startswith("crop")]) == 6
    assert "<script" not in text and len(text) < 5_000_000
    said = capsys.readouterr()
    assert "damaged.jpg" in said.out + said.err
    assert (tmp_path / "out" / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_a_window_says_which_share_of_the_image_it_is():
    image = drawn_picture(20, 80)
    for level, fraction in ((0.0, "area 0.25"), (1.0, "area 0.062")):
        words, pixels = preview._window(image, (1.0, 0.0625), level, 16, "linear")
        assert words == fraction and pixels.shape == (16, 16, 3)
