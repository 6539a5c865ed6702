"""DeepMind's checkpoint files: a real one, damaged ones, and hostile ones."""

import copyreg
import functools
import os
import pathlib
import pickle
import struct
import sys

import jax
import numpy as np
import pytest

from byol_jax.checkpoints import deepmind, safe_pickle
from byol_jax.models import byol_network
from tests.support import golden_data

FILE = golden_data.FOLDER / "deepmind_tiny.pkl"
EVAL = golden_data.load("deepmind_tiny_eval")


@functools.cache
def checkpoint():
    return deepmind.load_pickle(FILE)


# The file that the reference wrote.


def test_step():
    assert checkpoint().step == int(EVAL["step"])


@pytest.mark.parametrize("tree", [name for name in deepmind.Checkpoint._fields if name != "step"])
def test_trees_equal_the_reference(tree):
    actual = getattr(checkpoint(), tree)
    golden_data.assert_summary(EVAL, f"{tree}_summary", actual, tolerance=1e-6)
    names = {f"{module}|{name}" for module, leaves in actual.items() for name in leaves}
    assert names == {str(name) for name in EVAL[f"{tree}_summary|names"]}
    assert type(actual) is dict
    for leaves in actual.values():
        assert type(leaves) is dict and all(type(leaf) is np.ndarray for leaf in leaves.values())


def test_network_gives_the_outputs_of_the_reference():
    params, state = checkpoint().online_params, checkpoint().online_state
    forward = byol_network.make_forward(
        "tiny_resnet",
        num_classes=params["classifier"]["w"].shape[1],
        projector_hidden_size=params["projector/linear"]["w"].shape[1],
        projector_output_size=params["projector/linear_1"]["w"].shape[1],
        predictor_hidden_size=params["predictor/linear"]["w"].shape[1],
    )
    apply = jax.jit(functools.partial(forward.apply, is_training=False), static_argnames="part")
    images = EVAL["images"].astype(np.float32) / np.float32(255)
    outputs, _ = apply(params, state, None, images)
    for name in ("embedding", "projection", "prediction", "logits"):
        assert golden_data.relerr(getattr(outputs, name), EVAL[name]) <= 2e-5, name
    correct = np.argmax(outputs.logits, axis=-1) == EVAL["labels"]
    np.testing.assert_array_equal(correct, EVAL["eval_batch|top1_accuracy"])
    target = (checkpoint().target_params, checkpoint().target_state)
    outputs, _ = apply(*target, None, images, part="target")
    assert golden_data.relerr(outputs.projection, EVAL["target_projection"]) <= 2e-5


# A small assembler for pickles of protocol 2.


def text(string):
    data = string.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def pack(*items):
    return b"(" + b"".join(items) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *args):
    return function + pack(*args) + b"R"


def plain(value):
    """Pickles numbers and arrays the usual way, without protocol and stop."""
    return pickle.dumps(value, 2)[2:-1]


def mapping(**items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def record(dill, **fields):
    names = pack(*map(text, fields))
    cls = call(name(dill, "_create_namedtuple"), text("State"), names, text("byol.experiment"))
    return cls + pack(*fields.values()) + b"\x81"


def array_parts(array, core="numpy._core.multiarray"):
    """Function, arguments and state that rebuild an array, as dill and jax write them."""
    dtype = plain(array.dtype)
    state = pack(plain(1), plain(array.shape), dtype, plain(False), plain(array.tobytes()))
    args = pack(name("numpy", "ndarray"), plain((0,)), plain(b"b"))
    return name(core, "_reconstruct"), args, state


VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def whole_file(leaf=None, *, dill="dill._dill", wrap=lambda tree: tree, **replaced):
    """A complete checkpoint, in which a leaf or whole entries can be replaced."""
    tree = wrap(mapping(layer=wrap(mapping(w=plain(VALUES) if leaf is None else leaf))))
    entries = dict.fromkeys(
        ("online_params", "target_params", "online_state", "target_state"), tree
    )
    entries["opt_state"] = pack(record(dill), record(dill, mu=tree), record(dill))
    root = dict(experiment_state=record(dill, **(entries | replaced)), step=plain(7))
    return b"\x80\x02" + mapping(**root) + b"."


@pytest.fixture
def load(tmp_path):
    def load_bytes(data):
        path = tmp_path / "file.pkl"
        path.write_bytes(data)
        return deepmind.load_pickle(path)

    return load_bytes


def assert_is_small_checkpoint(result):
    assert result.step == 7
    for tree in result[1:]:
        np.testing.assert_array_equal(tree["layer"]["w"], VALUES)


# Files of other library versions.


@pytest.mark.parametrize("dill", ["dill._dill", "dill.dill"])
@pytest.mark.parametrize("core", ["numpy._core.multiarray", "numpy.core.multiarray"])
def test_arrays_of_dill(load, dill, core):
    leaf = call(name(dill, "_create_array"), *array_parts(VALUES, core), plain(None))
    assert_is_small_checkpoint(load(whole_file(leaf, dill=dill)))


@pytest.mark.parametrize(
    "function",
    [
        name("jax._src.array", "_reconstruct_array"),
        name("jax._src.device_array", "reconstruct_device_array"),
    ],
)
def test_arrays_of_jax(load, function):
    leaf = call(function, *array_parts(VALUES), mapping(weak_type=plain(False)))
    assert_is_small_checkpoint(load(whole_file(leaf)))


@pytest.mark.parametrize("cls", ["frozendict", "FlatMapping"])
def test_mappings_of_haiku(load, cls):
    wrap = functools.partial(call, name("haiku._src.data_structures", cls))
    assert_is_small_checkpoint(load(whole_file(wrap=wrap)))


@pytest.mark.parametrize("array", [VALUES, np.asfortranarray(VALUES), VALUES.astype(np.int64)])
def test_arrays_of_numpy(load, array):
    assert_is_small_checkpoint(load(whole_file(plain(array))))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_protocols(tmp_path, protocol):
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"a": {"b": VALUES, "c": np.float32(3)}}, protocol))
    with path.open("rb") as file:
        found, budget = safe_pickle.follow(file, deepmind._NAMES), safe_pickle.Budget(path)
    tree = deepmind._to_tree(found, "tree", budget)
    tree = deepmind.load_tree(path, tree)
    np.testing.assert_array_equal(tree["a"]["b"], VALUES)
    np.testing.assert_array_equal(tree["a"]["c"], np.float32(3))


def test_step_as_numpy_scalar_and_no_momentum(load):
    data = whole_file(opt_state=b")").replace(plain(7), plain(np.int64(7)))
    result = load(data)
    assert result.step == 7
    assert result.momentum is None


# Damaged files, and files of something else.


@pytest.mark.parametrize("fraction", [0, 1e-6, 1e-4, 0.3, 0.9999, 1])
def test_truncated_file(load, fraction):
    data = FILE.read_bytes()
    with pytest.raises(deepmind.UnsupportedPickle, match=r"file\.pkl.*damaged"):
        load(data[: min(int(fraction * len(data)), len(data) - 1)])


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"hello\n", b"PK\x03\x04", b"\x80\x02."])
def test_not_a_pickle(load, data):
    with pytest.raises(deepmind.UnsupportedPickle, match=r"file\.pkl"):
        load(data)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        deepmind.load_pickle(tmp_path / "none.pkl")


@pytest.mark.parametrize(
    "data, match",
    [
        (b"\x80\x02" + mapping(step=plain(1)) + b".", "lacks 'experiment_state', has .'step'"),
        (whole_file(online_params=plain(3)), "online_params is not a tree"),
        (whole_file(target_state=mapping(layer=plain(3))), "target_state is not a tree"),
        (whole_file(plain(3)), "online_params has an entry layer/w that is no array"),
        (whole_file(plain("text")), "layer/w that is no array"),
    ],
)
def test_other_pickles(load, data, match):
    with pytest.raises(deepmind.UnsupportedPickle, match=match):
        load(data)


def test_linear_evaluation_checkpoint_is_refused_by_its_fields(load):
    state = record("dill._dill", backbone_params=mapping(), classif_params=mapping())
    data = b"\x80\x02" + mapping(experiment_state=state, step=plain(1)) + b"."
    with pytest.raises(deepmind.UnsupportedPickle, match="backbone_params"):
        load(data)


@pytest.mark.parametrize("shape", [(2, 4), (-2, -3), (6, 1.0), (1,) * 40 + (6,), (2**62, 2**62)])
def test_shape_that_does_not_fit(load, shape):
    function, args, state = array_parts(VALUES)
    bad = state.replace(plain((2, 3)), plain(shape))
    with pytest.raises(deepmind.UnsupportedPickle, match="shape"):
        load(whole_file(call(name("dill._dill", "_create_array"), function, args, bad)))


# Hostile files.

MARKER = "ran.txt"
COMMAND = f"open({MARKER!r}, 'w').close()"


class Evil:
    def __reduce__(self):
        return exec, (COMMAND,)


def create_array(function, args, state=b")"):
    return call(name("dill._dill", "_create_array"), function, args, state)


RUN = pack(text(COMMAND))
LATIN1 = name("_codecs", "encode")
HOSTILE = {
    "builtins.exec": plain(Evil()).replace(b"c__builtin__", b"cbuiltins"),
    "__builtin__.exec": plain(Evil()),
    "builtins.eval": name("builtins", "eval") + pack(text(f"exec({COMMAND!r})")) + b"R",
    "os.system": call(name("os", "system"), text(f"touch {MARKER}")),
    "posix.system": call(text("posix") + text("system") + b"\x93", text(f"touch {MARKER}")),
    "subprocess.Popen": name("subprocess", "Popen") + pack(text("true")) + b"\x81",
    "this.s": name("this", "s"),
    "dill._dill._create_function": name("dill._dill", "_create_function") + pack() + b"R",
    "dill._dill._create_code": name("dill._dill", "_create_code") + pack() + b"R",
    "dill._dill._import_module": call(name("dill._dill", "_import_module"), text("this")),
    "dill._dill._create_array.__globals__": name("dill._dill", "_create_array.__globals__"),
    "numpy.ndarray.tofile": text("numpy") + text("ndarray.tofile") + b"\x93",
    "numpy.load": call(name("numpy", "load"), text(MARKER)),
    "functools.partial": call(name("functools", "partial"), name("builtins", "exec")),
    "byol_jax.checkpoints.deepmind.load_pickle": name(
        "byol_jax.checkpoints.deepmind", "load_pickle"
    ),
    # The names that are known must not become a way to call others.
    "builtins.exec in _create_array": create_array(name("builtins", "exec"), RUN),
    "another function than numpy's": create_array(LATIN1, pack(text("x"), text("latin1"))),
    "another class than numpy.ndarray": call(
        name("numpy.core.multiarray", "_reconstruct"), LATIN1, plain((0,)), plain(b"b")
    ),
    "encode bytes": call(LATIN1, text("x"), text("rot13")),
    "dtype 'O8'": plain(np.array([1], object)),
    "dtype 'O8' with code inside": plain(np.array([3, Evil()], object)),
    "dtype '()'": call(name("numpy", "dtype"), b")" + b"\x85" * 9000),
    "dtype 'V8'": plain(np.zeros(2, [("a", "f4"), ("b", "f4")])),
    "dtype 'U1'": plain(np.array(["a"])),
    "little-endian number": plain(np.dtype(">f4")),
    "not an array": LATIN1 + mapping(__code__=plain(None)) + b"b",
    "not a function": text("x") + b")R",
    "not a named tuple": name("numpy", "dtype") + pack(text("f4")) + b"\x81",
    "keys are not text": b"}(" + plain(1) + plain(2) + b"u",
    # Other ways of pickle to name something.
    "INST": b"(" + text(COMMAND) + b"ibuiltins\nexec\n",
    "OBJ": b"(" + name("numpy", "ndarray") + b"o",
    "EXT1": b"\x82\xf0" + RUN + b"R",
    "EXT2": b"\x83\xf0\x00" + RUN + b"R",
    "PERSID": b"Pthing\n",
    "NEWOBJ_EX": name("numpy", "dtype") + b")}\x92",
}


@pytest.fixture
def hostile_folder(tmp_path, monkeypatch):
    """Runs in an empty folder, with an extension code that stands for exec."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    copyreg.add_extension("builtins", "exec", 0xF0)
    yield tmp_path
    copyreg.remove_extension("builtins", "exec", 0xF0)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_file_is_refused_and_runs_nothing(load, hostile_folder, what, inside):
    code = HOSTILE[what]
    with pytest.raises(deepmind.UnsupportedPickle) as error:
        load(whole_file(code) if inside else b"\x80\x02" + code + b".")
    expected = what.split(" in _create")[0].split(" with code")[0]
    assert "file.pkl: " in str(error.value) and expected in str(error.value)
    assert os.listdir(hostile_folder) == ["file.pkl"]
    assert "this" not in sys.modules


@pytest.mark.parametrize("what", ["__builtin__.exec", "builtins.eval", "os.system", "EXT1"])
def test_the_same_bytes_run_when_unpickled(hostile_folder, what):
    """Else the test above would prove nothing."""
    pickle.loads(b"\x80\x02" + HOSTILE[what] + b".")
    assert pathlib.Path(MARKER).exists()


def test_a_text_encoded_again_and_again_is_refused(load):
    stored = LATIN1 + b"q\x04" + text("x" * 1000) + b"q\x05" + text("latin1") + b"q\x06"
    again = b"h\x04(h\x05h\x06tR" * 1000
    with pytest.raises(deepmind.UnsupportedPickle, match="more bytes than the file has"):
        load(b"\x80\x02" + stored + again + b".")


@pytest.mark.parametrize("opcode", [b"X" + b"\xff" * 4, b"\x8d" + b"\xff" * 7 + b"\x7f"])
def test_a_length_beyond_the_file_is_refused(load, opcode):
    with pytest.raises(deepmind.UnsupportedPickle, match="damaged"):
        load(b"\x80\x02" + opcode + b"abc.")


def test_nested_and_circular_values_end(load):
    circle = b"}q\x05" + text("layer") + b"h\x05s"
    with pytest.raises(deepmind.UnsupportedPickle):
        load(whole_file(online_params=circle))
    with pytest.raises(deepmind.UnsupportedPickle):
        load(whole_file(b")" + b"\x85" * 20_000))
