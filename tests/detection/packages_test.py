"""What detection says where it cannot begin; PyTorch is not needed for it."""

import pytest

from byol_jax.config import UsageError
from byol_jax.export import torch_export
from byol_jax.tasks import detection
from configs import detection as config_file


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_export, "has", lambda *_: True)
    config = config_file.get_config()
    config.checkpoint = str(tmp_path / "nothing")
    return config


def test_a_missing_extra_names_the_command_that_installs_it(config, monkeypatch, tmp_path):
    monkeypatch.setattr(torch_export, "has", lambda *_: False)
    with pytest.raises(UsageError, match=r"pip install .byol_jax\[detection\]"):
        detection.run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


BAD = {
    "set": ({"data.name": "voc2008"}, "Unknown data.name: 'voc2008'.*voc2007"),
    "sides": ({"test_image_size": 1400}, "longest_side must be 1400 or more"),
    "parts": ({"batch_size": 12}, "accumulate must divide.*take 4"),
    "anchors": ({"anchor_sizes": ()}, "such as --config.anchor_sizes"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused(case, config):
    keys, message = BAD[case]
    config.update_from_flattened_dict(keys)
    with pytest.raises(UsageError, match=message):
        detection.resolve(config)


def test_presets_differ_in_what_they_learn_from():
    presets = {name: config_file.get_config(name) for name in config_file.PRESETS}
    assert presets["voc0712"].data.name == "voc0712" and presets["voc0712"].total_steps == 24_000
    assert presets["frozen"].frozen and not presets[""].frozen
    train, test = (load.keywords["years"] for load in detection.SETS["voc0712"][:2])
    assert train == (2007, 2012) and test == (2007,)
