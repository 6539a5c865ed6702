"""Files of weights that were made, or damaged, to cost more than they hold: a line and no wait."""

import json
import pickle
import random
import time

import numpy as np
import pytest

from byol_jax.checkpoints import deepmind, export_contents, safe_pickle, sources, torch_checkpoint
from byol_jax.config import UsageError
from byol_jax.models import encoder_spec
from tests.checkpoints.deepmind_test import mapping, plain, record
from tests.checkpoints.third_party_weights_test import random_network, zipped
from tests.tasks.export_test import PICKLE, write_encoder

SECONDS = 2.0  # for a file of kilobytes


@pytest.fixture
def quickly():
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SECONDS


def shared(width, depth):
    """A dictionary of one dictionary under many names, and so on; a kilobyte of pickle."""
    value = {}
    for _ in range(depth):
        value = dict.fromkeys(map(str, range(width)), value)
    return value


@pytest.mark.parametrize("shape", [(16, 8), (40, 9), (100, 5)])
@pytest.mark.usefixtures("quickly")
def test_dictionaries_shared_by_dictionaries_are_refused(shape, tmp_path):
    path = tmp_path / "file.pt"
    path.write_bytes(zipped(pickle.dumps(shared(*shape), 2)))
    with pytest.raises(safe_pickle.UnsupportedPickle, match="file.pt: refuses to make more"):
        torch_checkpoint.open_tensors(path)


@pytest.mark.usefixtures("quickly")
def test_a_dictionary_that_holds_itself_comes_to_an_end(tmp_path):
    value = {"a": 1}
    value["self"] = value
    (tmp_path / "file.pt").write_bytes(zipped(pickle.dumps(value, 2)))
    assert torch_checkpoint.open_tensors(tmp_path / "file.pt") == {}


def test_a_shape_of_a_thousand_axes_is_refused():
    storage = torch_checkpoint._Storage(np.dtype("<f4"), 1, lambda *_: b"")
    for shape in ((1,) * 1000, (1 << 2000,)):
        with pytest.raises(safe_pickle.UnsupportedPickle, match="not a row of sizes"):
            torch_checkpoint._tensor(storage, 0, shape, shape)


@pytest.mark.usefixtures("quickly")
def test_arrays_shared_by_modules_of_deepmind_are_refused(tmp_path):
    """Each name of a module or an array is a few bytes, all pairs of them are millions."""
    names = [f"n{number}" for number in range(3000)]
    leaves = mapping(**dict.fromkeys(names, b"h\xf0"))
    first = plain(np.float32(1)) + b"q\xf0"
    tree = mapping(**dict.fromkeys(names, b"h\xf1"))
    entries = dict.fromkeys(deepmind._FIELDS, tree)
    state = record("dill._dill", **entries, opt_state=b"]")
    parts = {"leaf": first, "leaves": leaves + b"q\xf1", "experiment_state": state}
    root = mapping(**parts, step=plain(7))
    path = tmp_path / "file.pkl"
    path.write_bytes(b"\x80\x02" + root + b".")
    with pytest.raises(safe_pickle.UnsupportedPickle, match="file.pkl: refuses to make more"):
        deepmind.open_pickle(path)


BAD_CARDS = {
    "nested": "[" * 100_000,
    "a list": "[]",
    "no source": {"source": None},
    "notes": {"notes": 3},
    "config": {"config": "x"},
    "encoder": {"card": {"encoder": "resnet5000"}},
    "no number": {"card": {"encoder": "micro_resnet", "mean": [None, 1, 2]}},
    "infinite": {"card": {"encoder": "micro_resnet", "std": [1e999, 1, 1]}},
    "size": {"card": {"encoder": "micro_resnet", "image_size": 10**9}},
    "width": {"card": {"encoder": "micro_resnet", "width_multiplier": 10**30}},
    "mean of a word": {"card": {"encoder": "micro_resnet", "mean": "abc"}},
    "gray": {"card": {"encoder": "micro_resnet", "grey_ranges": [1]}},
    "gray without an end": {"card": {"encoder": "micro_resnet", "grey_ranges": {"float": [0]}}},
    "unknown key": {"card": {"encoder": "micro_resnet", "depth": 3}},
    "a word": {"card": "micro_resnet"},
}


@pytest.mark.parametrize("what", BAD_CARDS)
@pytest.mark.usefixtures("quickly")
def test_a_card_of_anything_is_refused_by_the_name_of_its_file(what, tmp_path):
    good = {"format": export_contents.FORMAT, "card": {"encoder": "micro_resnet"}, "licence": ""}
    good |= {"source": {"step": 1}, "network": "online", "config": None, "notes": []}
    change = BAD_CARDS[what]
    text = change if isinstance(change, str) else json.dumps(good | change)
    (tmp_path / export_contents.MODEL).write_text(text)
    with pytest.raises(UsageError, match="Cannot read .*model.json: ") as error:
        sources.open_weights(str(tmp_path))
    assert len(str(error.value).splitlines()) == 1


def damaged(data, rng):
    """Some bytes changed, left out, doubled or added."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 3, 10))):
        place, count = rng.randrange(len(data)), rng.randrange(9)
        new = rng.choice((b"", rng.randbytes(count), data[place : place + 3 * count]))
        data[place : place + count] = new
    return bytes(data)


def write_torch(path):
    code = pickle.dumps({"state_dict": {"conv1.weight": 1, "layer": {"bias": [2, "x"]}}}, 2)
    path.write_bytes(zipped(code))


@pytest.mark.slow
def test_damage_is_always_told_in_a_line_that_names_the_file(tmp_path):
    card = encoder_spec.EncoderSpec("micro_resnet", image_size=32)
    network = random_network(card)
    export = write_encoder(tmp_path / "export", card, network) / export_contents.WEIGHTS
    write_torch(tmp_path / "file.pt")
    whole = {path: path.read_bytes() for path in (export, tmp_path / "file.pt")}
    whole[tmp_path / "file.pkl"] = PICKLE.read_bytes()
    rng = random.Random(0)
    for number in range(120):
        path = list(whole)[number % 3]
        head, tail = whole[path][:3000], whole[path][3000:]
        path.write_bytes(damaged(head, rng) + tail)
        start = time.monotonic()
        try:
            found = sources.open_weights(str(path))
            sources.load(found, "online")
        except UsageError as error:
            assert str(path) in str(error)
        assert time.monotonic() - start < SECONDS
