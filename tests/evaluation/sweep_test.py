"""What a sweep tries, chooses, keeps and says, whatever its settings are."""

import numpy as np
import pytest

from byol_jax.evaluation import sweep

SETTINGS = [{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}]


def hold_out():
    return np.arange(4), np.arange(4, 20)


def choose(tops, settings=SETTINGS, **options):
    """The choice among settings with such accuracies; each leaves its number."""

    def attempt(validation, rest):
        assert len(validation) == 4 and len(rest) == 16
        for number, top in enumerate(tops):
            yield dict(zip(sweep.TOP, top, strict=True)), number

    return sweep.select(settings, hold_out, attempt, **options)


@pytest.mark.parametrize(
    ("tops", "best"),
    [
        ([(0.5, 0.5), (0.6, 0.6), (0.4, 0.9)], 1),
        ([(0.5, 0.5), (0.5, 0.6), (0.4, 0.9)], 1),  # top-5 decides among equals
        ([(0.5, 0.5), (0.5, 0.5), (0.5, 0.5)], 0),  # then the order
    ],
)
def test_the_best_row_is_chosen_and_what_it_left_is_kept(tops, best):
    chosen = choose(tops)
    assert chosen.best == chosen.fitted == best
    assert [row["validation_top1"] for row in chosen.table] == [top[0] for top in tops]


def test_another_column_may_choose():
    assert choose([(0.5, 0.1), (0.1, 0.3), (0.2, 0.2)], by=["validation_top5"]).best == 1


def test_a_selection_says_what_it_was_made_on():
    tops = [(0.1, 0.2), (0.3, 0.4), (0.0, 0.0)]
    found = choose(tops, split="valid").results()
    row = {"rate": 0.2, "validation_top1": 0.3, "validation_top5": 0.4}
    assert found["selected"] == row | {"among": 3, "on": "validation: 4 images of valid"}
    assert found["table"][1] == row
    on = choose(tops).results()["selected"]["on"]
    assert on == "validation: 4 images held out of the train split"


def test_with_one_setting_nothing_is_tried_and_no_image_is_held_out():
    def refuse(*_):
        raise AssertionError("nothing is to be chosen")

    chosen = sweep.select(SETTINGS[:1], refuse, refuse)
    selected = chosen.results()["selected"]
    assert selected == {"rate": 0.1, "among": 1, "on": "nothing: one setting was given"}
    assert chosen.fitted is None
    counts = chosen.num_images(20, 7, {"bad": 1})
    assert counts == {"train": 20, "validation": 0, "evaluated": 7, "bad": 1}


def test_the_settings_are_left_as_they_are():
    choose([(0.5, 0.5)] * 3)
    assert SETTINGS[0] == {"rate": 0.1}


def test_an_attempt_that_forgets_a_setting_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        choose([(0.5, 0.5)] * 2)


COLUMNS = [sweep.Column("rate", "rate", 6, "g")]


def test_the_printed_table_marks_the_chosen_row_alone():
    tops = [(0.1, 0.2), (0.25, 0.4), (0.0, 0.0)]
    lines = sweep.describe(choose(tops).results(), COLUMNS, sweep.VALIDATION_COLUMNS)
    assert lines[0] == "  rate   validation top-1    top-5"
    assert lines[2] == "   0.2             25.00%   40.00%  <- chosen"
    assert lines[-1].startswith("chosen on validation: 4 images")
    assert "".join(lines).count("<-") == 1


def test_what_no_row_has_is_no_column_and_none_is_a_dash():
    settings = [{"rate": None}]
    found = choose([], settings).results()
    assert sweep.describe(found, COLUMNS, sweep.VALIDATION_COLUMNS) == []
    found["table"] = [settings[0] | {"top1": 0.5}]
    columns = [*sweep.VALIDATION_COLUMNS, sweep.Column("top1", "top-1", 8, ".2%")]
    lines = sweep.describe(found, COLUMNS, columns, note=lambda row: "  noted")
    assert lines[:2] == ["  rate   top-1", "     -  50.00%  noted"]
    assert lines[2] == "chosen on nothing: one setting was given"
