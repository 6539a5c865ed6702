"""What a run writes where files are durable only once they are closed."""

import json

import pytest

from byol_jax.training import run_writer
from byol_jax.workdir import metric_writer


class Checkpoints:
    """Notes what a reader would find at the moment of a save."""

    def __init__(self):
        self.closed = []

    def save(self, step, state, iterator_state):
        self.closed.append(all(file.closed for file in self.files))


@pytest.fixture
def writer(tmp_path):
    made = run_writer.RunWriter(None, {}, tmp_path, None)
    made.logger = metric_writer.Logger(tmp_path)
    made._checkpoints = Checkpoints()
    made._checkpoints.files = [made.logger._file, made.logger._board._tracker._file]
    yield made
    made.logger.close()


def test_metrics_and_events_are_closed_before_each_checkpoint_and_go_on(writer, tmp_path):
    writer.log(1, {"loss": 2.0})
    writer.save(1, None, {})
    assert writer._checkpoints.closed == [True]
    writer.log(2, {"loss": 1.0})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_in_a_workdir_that_is_elsewhere_nothing_is_opened_again(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "is_left", lambda: True)
    writer.save(1, None, {})
    assert writer._checkpoints.closed == [False]
