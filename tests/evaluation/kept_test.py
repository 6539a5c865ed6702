"""What is remembered of a classifier until its evaluation has come to its end."""

import json

import jax
import numpy as np
import pytest

from byol_jax.checkpoints import classifiers
from byol_jax.evaluation import kept, result_folder, resume

RNG = np.random.default_rng(0)
ALONE = kept.Fitted(RNG.standard_normal((3, 2)).astype(np.float32), np.zeros(2, np.float32))
WITH_ENCODER = ALONE._replace(
    params={"net/~/conv": {"w": np.ones((1, 1, 3, 3), np.float32)}},
    state={"net/~/norm/~/mean_ema": {"counter": np.int32(7), "hidden": np.zeros(3, np.float32)}},
)


@pytest.mark.parametrize("fitted", [ALONE, WITH_ENCODER], ids=["alone", "with its encoder"])
def test_a_later_attempt_finds_what_an_earlier_one_has_fitted(fitted, tmp_path):
    with pytest.raises(KeyboardInterrupt), resume.opened(tmp_path, {"a": 1}, "sha") as work:
        work.keep(fitted)
        raise KeyboardInterrupt
    with resume.opened(tmp_path, {"a": 1}, "sha") as work:
        found = work.recall()
    same = jax.tree.map(np.array_equal, found._asdict(), fitted._asdict())
    assert all(jax.tree.leaves(same))
    assert not (tmp_path / resume.FOLDER).exists()


def test_another_evaluation_finds_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), resume.opened(tmp_path, {"a": 1}, "sha") as work:
        work.keep(ALONE)
        raise KeyboardInterrupt
    with resume.opened(tmp_path, {"a": 2}, "sha") as work:
        assert work.recall() is None


def test_a_classifier_is_set_aside_with_its_result(tmp_path):
    for number in (1, 2):
        part = tmp_path / ".part"
        part.mkdir()
        (part / classifiers.CARD).write_text(str(number))
        result = {"config": {"seed": number}, "classifier": classifiers.FOLDER}
        result_folder.write(tmp_path, result, part)
    aside = tmp_path / result_folder.EARLIER / "1"
    assert (aside / classifiers.FOLDER / classifiers.CARD).read_text() == "1"
    assert (tmp_path / classifiers.FOLDER / classifiers.CARD).read_text() == "2"
    assert json.loads((tmp_path / result_folder.FILE).read_text())["config"] == {"seed": 2}
