"""The paper's sets, as presets: names that TFDS knows, splits and sizes of the paper's table."""

import pytest
import tensorflow_datasets as tfds

from byol_jax import config as config_lib
from byol_jax.data import transfer_datasets
from byol_jax.tasks import transfer as task
from configs import transfer

# Paper, table 10: images of train + validation, and held out of them; None: a split of its own.
SIZES = {
    "food101": (75_750, 7_575),
    "cifar10": (50_000, 5_000),
    "cifar100": (50_000, 5_000),
    "sun397": (19_850, 3_970),
    "cars": (8_144, 1_650),
    "voc2007": (5_011, None),
    "dtd": (3_760, None),
    "pets": (3_680, 740),
    "caltech101": (3_060, 510),
    "flowers": (2_040, None),
    "birdsnap": (47_386, 4_981),
    "aircraft": (6_667, None),
}


def test_every_preset_is_a_set_that_tfds_knows():
    assert set(SIZES) == set(transfer_datasets.SETS)
    known = set(tfds.list_builders(with_community_datasets=False))
    for name, found in transfer_datasets.SETS.items():
        if name in ("birdsnap", "aircraft"):
            assert found.name == transfer_datasets.FOLDER
            continue
        assert found.name.removeprefix("tfds:").split("/")[0] in known


@pytest.mark.parametrize("preset", SIZES)
def test_presets_have_the_papers_splits_and_metric(preset):
    config, found = transfer.get_config(preset), transfer_datasets.SETS[preset]
    total, held_out = SIZES[preset]
    assert (config.data.name, config.metric) == (found.name, found.metric)
    assert (config.data.train_split, config.data.eval_split) == ("train", found.eval_split)
    assert bool(config.data.validation_split) == (held_out is None)
    if held_out:
        assert round(config.data.validation_share * total) == held_out


def test_a_set_brings_its_metric_along_however_it_is_named():
    assert transfer_datasets.metric("tfds:oxford_iiit_pet") == "mean_per_class"
    assert transfer_datasets.metric("tfds:voc/2007") == "map11"
    assert transfer_datasets.metric("folder") == "top1"


def test_a_wrong_preset_names_the_nearest():
    with pytest.raises(config_lib.UsageError, match="Did you mean 'pets'"):
        transfer.get_config("pet")


@pytest.mark.parametrize("preset", ["birdsnap", "aircraft"])
def test_a_set_that_tfds_lacks_asks_for_its_folder(preset, tmp_path):
    with pytest.raises(config_lib.UsageError, match=f"folder of {preset} by --config.data.dir"):
        task.run(transfer.get_config(preset), tmp_path)
    assert not list(tmp_path.iterdir())
