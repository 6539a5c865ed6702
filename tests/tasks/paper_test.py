"""The paper's evaluations in one command: what is run, skipped, resumed and compared."""

import json

import pytest

from byol_jax.comparison import evaluations, paper_numbers, rows
from byol_jax.config import UsageError
from byol_jax.data import transfer_datasets
from byol_jax.evaluation import resume
from byol_jax.export import torch_export
from byol_jax.studies import runner
from byol_jax.tasks import paper
from configs import paper as config_file

TABLE = {one.name: one for one in evaluations.EVALUATIONS}


def result_of(one, value=0.5):
    """What an evaluation writes, as far as it is compared."""
    names = {section: {m.name: value for m in one.measures if m.section == section}
             for section in ("accuracy", "errors")}  # fmt: skip
    limits = {m.name: [value - 0.1, value + 0.1] for m in one.measures}
    return names | {"interval_95": limits}


def test_every_set_of_the_paper_is_compared():
    assert {f"transfer_{name}" for name in transfer_datasets.SETS} < set(TABLE)
    assert set(paper_numbers.TRANSFER) == set(transfer_datasets.SETS)
    assert set(config_file.get_config().options) == {one.keys for one in TABLE.values()}


def test_a_row_has_the_papers_number_ours_and_the_difference():
    (row,) = rows.make_rows(TABLE["linear"], result_of(TABLE["linear"]), ("resnet50", 2))
    assert row == {
        "evaluation": "linear",
        "measure": "top-1",
        "paper": "77.4",
        "ours": "50.00 [40.00, 60.00]",
        "difference": "-27.40 [-37.40, -17.40]",
    }
    found = rows.make_rows(TABLE["depth"], result_of(TABLE["depth"]), ("resnet18", 1))
    assert found[3]["paper"] == "0.541 (ResNet-50)"
    assert found[3]["ours"] == "0.5000 [0.4000, 0.6000]"
    assert found[3]["difference"] == "-0.0410 [-0.1410, +0.0590]"


def test_of_several_seeds_the_deviation_is_shown():
    result = result_of(TABLE["segmentation"]) | {"std": {"miou": 0.01}, "per_seed": [1, 2]}
    (row,) = rows.make_rows(TABLE["segmentation"], result, ("resnet50", 1))
    assert row["ours"] == "50.00 +- 1.00 over 2 seeds" and row["difference"] == "-26.30"


FOUND = {
    "imagenet": {"linear", "semi_supervised_1percent", "semi_supervised_10percent"},
    "imagenet2012": {"linear", "semi_supervised_1percent", "semi_supervised_10percent"},
    "sun397/standard-part1-120k": {"transfer_sun397"},
    "aircraft": {"transfer_aircraft"},
    "voc/2007": {"transfer_voc2007"},
    "VOCdevkit/VOC2012": {"segmentation"},
    "VOCdevkit/VOC2007": {"detection"},
    "nyudepthv2": {"depth"},
}


@pytest.mark.parametrize("folder", FOUND)
def test_what_is_there_is_evaluated(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_export, "has", lambda *_: True)
    (tmp_path / folder).mkdir(parents=True)
    assert {one.name for one in TABLE.values() if one.find(tmp_path)} == FOUND[folder]


def test_without_its_extra_an_evaluation_is_skipped_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_export, "has", lambda *_: False)
    for folder in ("VOCdevkit/VOC2007", "nyudepthv2"):
        (tmp_path / folder).mkdir(parents=True)
    for name, extra in (("detection", "detection"), ("depth", "dense")):
        assert TABLE[name].find(tmp_path) is None
        assert f"byol_jax[{extra}]" in TABLE[name].get


@pytest.fixture
def world(tmp_path, run_folder, monkeypatch):
    """A folder with two sets, and commands that only write what they were asked for."""
    for folder in ("imagenet", "VOCdevkit/VOC2012"):
        (tmp_path / "sets" / folder).mkdir(parents=True)
    config = config_file.get_config("small")
    config.checkpoint, config.data.dir = str(run_folder), str(tmp_path / "sets")
    started, broken = [], set()

    def start(job, _):
        started.append(job.evaluation.name)
        if job.evaluation.name in broken:
            return "no memory (status 1)"
        job.workdir.mkdir(exist_ok=True)
        (job.workdir / "result.json").write_text(json.dumps(result_of(job.evaluation)))
        return ""

    monkeypatch.setattr(paper, "_run_one", start)
    return config, tmp_path / "out", started, broken


def measure(config, workdir):
    try:
        paper.run(config, workdir)
    finally:
        result = json.loads((workdir / "result.json").read_text())
    return result


ALL = ["linear", "semi_supervised_1percent", "semi_supervised_10percent", "segmentation"]


@pytest.mark.slow
def test_finished_evaluations_are_not_run_again(world):
    config, workdir, started, _ = world
    result = measure(config, workdir)
    assert started == ALL == [row["evaluation"] for row in result["rows"]]
    missing = {row["evaluation"]: row["how to get it"] for row in result["missing"]}
    assert "depth" in missing and "docs/dense.md" in missing["detection"]
    assert measure(config, workdir)["rows"] == result["rows"] and started == ALL
    config.options.segmentation += " seed=1"
    measure(config, workdir)
    assert started == [*ALL, "segmentation"]


@pytest.mark.slow
def test_what_a_killed_command_left_at_work_is_waited_for_and_not_run_again(world, monkeypatch):
    config, workdir, started, _ = world
    start, asked = paper._run_one, []

    def killed(job, place):
        start(job, place)
        raise KeyboardInterrupt  # after its process has been started, which goes on

    monkeypatch.setattr(paper, "_run_one", killed)
    with pytest.raises(KeyboardInterrupt):
        paper.run(config, workdir)
    monkeypatch.setattr(paper, "_run_one", start)
    monkeypatch.setattr(paper, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(paper, "_is_free", lambda _: asked.append(1) or len(asked) > 2)
    measure(config, workdir)
    assert started == ALL and len(asked) > 2


@pytest.mark.slow
def test_a_result_that_something_else_wrote_is_not_taken(world):
    config, workdir, started, _ = world
    measure(config, workdir)
    (workdir / "linear" / "result.json").write_text(json.dumps(result_of(TABLE["linear"], 0.9)))
    assert measure(config, workdir)["rows"][0]["ours"].startswith("50.00")
    assert started == [*ALL, "linear"]


@pytest.mark.slow
def test_one_that_fails_leaves_the_others_and_is_tried_again(world):
    config, workdir, started, broken = world
    broken.add("semi_supervised_1percent")
    with pytest.raises(runner.RunsFailedError, match="1 of 4.*1percent: no memory"):
        measure(config, workdir)
    result = json.loads((workdir / "result.json").read_text())
    assert [row["evaluation"] for row in result["failed"]] == ["semi_supervised_1percent"]
    assert len(result["rows"]) == 3
    broken.clear()
    assert len(measure(config, workdir)["rows"]) == 4 and started == [*ALL, ALL[1]]


class Child:
    """A process that takes three polls to save after it was asked to end."""

    def __init__(self, *_, **__):
        self.asked, self.polls = 0, 0
        Child.last = self

    def status(self):
        self.polls += 1
        return 0 if self.polls > 4 else None

    def ask_to_end(self):
        self.asked += 1


def test_a_signal_is_handed_on_once_since_a_second_one_would_not_save(monkeypatch, tmp_path):
    job = paper._job(TABLE["linear"], "x", {}, tmp_path)
    monkeypatch.setattr(paper.children, "Child", Child)
    monkeypatch.setattr(paper, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(paper.loop.StopRequest, "is_made", True, raising=False)
    monkeypatch.setattr(paper.loop.StopRequest, "__enter__", lambda self: self)
    monkeypatch.setattr(paper.loop.StopRequest, "__exit__", lambda *_: None)
    with pytest.raises(resume.Stopped, match="Stopped in linear, which has saved"):
        paper._run_one(job, tmp_path)
    assert Child.last.asked == 1


BAD = {
    "folder": ({"data.dir": "/nowhere"}, "'/nowhere' is no folder"),
    "no folder": ({"data.dir": ""}, "Say where all sets are"),
    "name": ({"only": "linear,segmentatoin"}, "Did you mean 'segmentation'"),
    "words": ({"options.depth": "seeds 5"}, "takes key=value with spaces, not 'seeds'"),
    "key": ({"options.depth": "sead=5"}, "sead.*seed"),
    "value": ({"options.depth": "seeds=many"}, "seeds"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_before_anything_is_started(case, tmp_path):
    keys, message = BAD[case]
    config = config_file.get_config()
    config.update_from_flattened_dict({"data.dir": str(tmp_path), "checkpoint": "x"} | keys)
    with pytest.raises(UsageError, match=message):
        paper.run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
