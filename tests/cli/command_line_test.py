"""What is typed: keys, values, files and flags that are wrong become one line each."""

import ast
import importlib
import pathlib
import re

import pytest
from absl import flags
from ml_collections import config_flags

from byol_jax import config as config_lib
from byol_jax.cli import command_line, config_files, typed_values
from byol_jax.training import config_ranges

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def parse(*words):
    """The config and what was typed, by flags of this call alone."""
    values, arguments = flags.FlagValues(), []
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=arguments)
    arguments[:] = command_line.arrange(["main_loop", *words], values)
    values(list(arguments))
    return values["config"].value, config_flags.get_override_values(values["config"])


MISTAKES = {
    "--config=configs/byol.py --config.batchsize=3": "Did you mean --config.batch_size?",
    "--config.image_size=3": "Did you mean --config.data.image_size?",
    "--confg.batch_size=2": "Did you mean --config.batch_size=2?",
    "--confg.data.dri=x": "Did you mean --config.data.dir=x?",
    "--batch_size=32": "Did you mean --config.batch_size=32?",
    "--data.dir=x": "Did you mean --config.data.dir=x?",
    "--workdri=x": "Did you mean --workdir=x?",
    "--confg=configs/knn.py": "Did you mean --config=configs/knn.py?",
    "--frobnicate": "--help lists all flags",
    "batch_size=32": "Did you mean --config.batch_size=32?",
    "configs/knn.py": "Did you mean --config=configs/knn.py?",
    "--config=configs/embed.py:folder": "has no presets: type --config=configs/embed.py.",
    "--config=configs": "is a folder: give one of its files. Here are: configs/bench_input.py",
    "--config=configs/boyl.py": "configs/byol.py, configs/convert.py",
    "--config=": "--config is empty",
    "--config": "type --config=configs/byol.py",
    "--config=configs/knn.py --config=configs/byol.py": "given 2 times",
    "--config=configs/byol.py:cifar": "Did you mean 'cifar10'",
    "--config=CITATION.cff": "Mistake in the config file CITATION.cff, line 1: SyntaxError",
    "--config=pyproject.toml": "Mistake in the config file pyproject.toml, line",
    "--config=byol_jax/config.py": "has no function get_config",
    "--workdir=az://lab/runs/a": "type --workdir=~/lab/runs/a",
    "--config=configs/study.py --workdir s3://lab/runs": "mount-s3 lab ~/lab",
    "--config=configs/pack.py --workdir=gs://lab/runs": "gcsfuse --implicit-dirs lab ~/lab",
    "--config.data.dir=gs://lab/photos": "gcsfuse --implicit-dirs lab ~/lab",
    "--config.checkpoint=https://lab.org/run": "address of https://",
    "--config=configs/export.py --config.checkpoint=gs://lab/run": "only folders are read",
    "--config.batch_size.x=1": "Type --config.batch_size=VALUE",
    "--config.data=x": "is a section; its keys are --config.data.dir",
    "--config.batch_size": "--config.batch_size has no value",
    "--config.batch_size=1e3": "type --config.batch_size=1000.",
    "--config.batch_size=many": "batch_size=many: batch_size takes a whole number",
    "--config.batch_size=": "takes a whole number",
    "--config.batch_size=nan": "takes a whole number",
    "--config.batch_size=2.5": "takes a whole number",
    "--config.total_steps=None": "takes a whole number",
    "--config.total_epochs=ten": "takes a number",
    "--config.accept_changes=yes": "type --config.accept_changes=true",
    "--config.data.mean=gray": 'type --config.data.mean="(1, 2)"',
    "--config.data.mean=((1,2),3)": "takes one number or several",
    "--noconfig.seed": "Unknown flag",
    "--workdir": "--workdir has no value",
}


@pytest.mark.parametrize("task", ["byol:patterns", "knn"])
def test_the_workdir_of_training_and_evaluations_may_be_in_a_bucket(task):
    name, colon, preset = task.partition(":")
    for address in ("gs://lab/runs/a", "s3://lab/a"):
        parse(f"--config=configs/{name}.py{colon}{preset}", f"--workdir={address}")


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_becomes_one_line_that_says_what_to_type(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(config_lib.UsageError) as error:
        parse(*words.split())
    assert MISTAKES[words] in str(error.value) and "\n" not in str(error.value)


def test_no_text_key_of_any_config_takes_the_address_of_a_bucket():
    """Whatever key holds a path, also in a config file of one's own."""
    for path in CONFIGS:
        config = config_files.load(str(path))
        for key, kind in config_files.kinds(config).items():
            if kind is str:
                with pytest.raises(config_lib.UsageError, match=f"{key}=az://x is an address"):
                    typed_values.check(key, kind, "az://x")
                with pytest.raises(config_lib.UsageError, match=f"{key}=az://x is an address"):
                    config_ranges.check_value(key, "az://x")


def test_whoever_types_what_is_said_is_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in MISTAKES:
        with pytest.raises(config_lib.UsageError) as error:
            parse(*words.split())
        text = str(error.value).replace("VALUE", "1").replace("(1, 2)", "(1,2)")
        said = re.split("Did you mean|[Tt]ype|, for example", text)[1:2]
        for word in re.findall(r"--\S+", " ".join(said)):
            advice = word.replace('"', "").rstrip("?.,")
            if "=" in advice:
                parse(advice)


def test_what_is_right_is_taken_in_any_order_and_form(monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["--config.batch_size", "0x20", "--noconfig.accept_changes", "--workdir", "x"]
    words += ["--config.data.mean=(0.1,0.2,0.3)", "--config=configs/byol.py:cifar10"]
    config, typed = parse(*words)
    assert config.preset == "cifar10" and config.batch_size == 32
    assert set(typed) == {"batch_size", "accept_changes", "data.mean"}
    config, typed = parse("--config.seed=3")
    assert config.preset == "patterns" and typed == {"seed": 3}


OWN = {
    "syntax": ("def get_config(:", "line 1: SyntaxError"),
    "name": ("def get_config():\n    return nothing", "line 2: NameError: name 'nothing'"),
    "import": ("import nothing_of_ours", "line 1: ModuleNotFoundError"),
    "deep": ("import json\ndef get_config():\n    return json.loads('x')", "line 3: JSONDecodeE"),
    "none": ("def get_config():\n    pass", "returns NoneType"),
    "keys": (
        "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict()",
        "lacks the key 'task'",
    ),
    "preset": ("def get_config(preset):\n    pass", "needs a preset"),
    "binary": ("\0", "null bytes"),
}


@pytest.mark.parametrize("case", OWN)
def test_a_mistake_in_a_persons_own_config_is_located(case, tmp_path):
    text, words = OWN[case]
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(config_lib.UsageError) as error:
        config_files.load(str(path))
    assert words in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_by_absolute_path_from_another_folder(path, tmp_path, monkeypatch):
    """Also where another package is called configs."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "configs", raising=False)
    monkeypatch.delitem(__import__("sys").modules, "configs.byol", raising=False)
    assert config_files.load(str(path)).task


def default_config(path):
    return importlib.import_module(f"configs.{path.stem}").get_config()


READ = {int: lambda text: int(text, 0), float: float, tuple: ast.literal_eval}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_numeric_key_takes_a_number_or_refuses_it_in_one_line(path):
    for key, kind in config_files.kinds(default_config(path)).items():
        if kind not in READ or key in typed_values.NAMES:
            assert kind in (str, bool) or key in typed_values.NAMES, key
            continue
        assert config_ranges.find(key), f"{key} needs a range"
        refused = []
        for text in ("-1", "0", "nan", "inf", "-inf", "1e3", "1e300", "9" * 30, "()", "None"):
            try:
                typed_values.check(key, kind, text)
                config_ranges.check_value(key, READ[kind](text))
            except config_lib.UsageError as error:
                assert f"--config.{key}" in str(error) and "\n" not in str(error)
                refused.append(text)
        assert {"nan", "inf", "-inf", "()", "None"} <= set(refused), key


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_values_of_our_configs_are_in_range(path):
    module = importlib.import_module(f"configs.{path.stem}")
    for preset in getattr(module, "PRESETS", [None]):
        config_ranges.check(module.get_config(*([preset] if preset else [])))
