"""Tries settings on images that are held out for it, and chooses one: what all protocols share.

A protocol selects on validation images, fits again with what was chosen, and measures once. Only
how a setting is fitted and scored is its own; see `select`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from byol_jax.metrics import accuracy, calibration

Fitted = TypeVar("Fitted")

# Fits each setting on the second positions and scores it on the first ones: of every setting, in
# their order, its columns of the table, and what was fitted, if the final fit can make use of it.
Attempt = Callable[[np.ndarray, np.ndarray], Iterable[tuple[Mapping[str, Any], Fitted]]]

TOP = ("validation_top1", "validation_top5")


class Choice(NamedTuple, Generic[Fitted]):
    """A sweep that is done.

    Attributes:
      table: a row for each setting: its values, and its scores if there was a choice.
      best: which row was chosen.
      fitted: what trying that setting has left; None if nothing was tried.
      num_validation: number of images that it was chosen on.
      on: what they are, in words.
    """

    table: list[dict[str, Any]]
    best: int
    fitted: Fitted | None
    num_validation: int
    on: str

    def results(self) -> dict[str, Any]:
        """What ``result.json`` says of it."""
        row = self.table[self.best]
        selected = dict(row) | {"among": len(self.table), "on": self.on}
        return {"selected": selected, "table": self.table}

    def num_images(
        self, fitted: int, evaluated: int, left_out: Mapping[str, int], *, name: str = "train"
    ) -> dict[str, int]:
        """The images of a protocol by what they are for.

        Args:
          fitted: number of images of the final fit.
          evaluated: number of images that are counted at the end.
          left_out: number of images that are bad, and that have no label.
          name: of those of the final fit.
        """
        used = {name: fitted, "validation": self.num_validation, "evaluated": evaluated}
        return used | dict(left_out)


def select(
    settings: Sequence[Mapping[str, Any]],
    hold_out: Callable[[], tuple[np.ndarray, np.ndarray]],
    attempt: Attempt[Fitted],
    *,
    by: Sequence[str] = TOP,
    split: str = "",
) -> Choice[Fitted]:
    """Chooses the setting with the best scores; of equal ones the first.

    With one setting nothing is tried, so that no image is held out.

    Args:
      settings: the values of each row.
      hold_out: gives the positions of the images to choose on, and of those to fit on.
      attempt: fits and scores all settings; may take hours.
      by: columns that choose, the most important first.
      split: that the images to choose on are; empty: they are held out of the training split.
    """
    table = [dict(setting) for setting in settings]
    if len(table) == 1:
        return Choice(table, 0, None, 0, "nothing: one setting was given")
    validation, rest = hold_out()
    best, kept = 0, None
    for number, (scores, fitted) in _counted(attempt(validation, rest), len(table)):
        table[number] |= scores
        # One by one, so that only the best so far is kept: a whole network, in fine-tuning.
        if number == 0 or _score(table[number], by) > _score(table[best], by):
            best, kept = number, fitted
    where = f"of {split}" if split else "held out of the train split"
    on = f"validation: {len(validation):,} images {where}"
    return Choice(table, best, kept, len(validation), on)


def _counted(items: Iterable[Any], count: int) -> Iterator[tuple[int, Any]]:
    return zip(range(count), items, strict=True)


def _score(row: Mapping[str, Any], by: Sequence[str]) -> tuple[float, ...]:
    return tuple(row[key] for key in by)


def of_logits(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Columns of a row: those of `on_validation`, and the temperature that fits best."""
    scores = on_validation(accuracy.correct(logits, labels))
    return scores | {"temperature": calibration.temperature(logits, labels)}


def on_validation(correct: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Columns of a row: accuracies on validation images, from `accuracy.top`."""
    return {f"validation_{name}": mean for name, mean in accuracy.means(correct).items()}


class Column(NamedTuple):
    """A column of a printed table.

    Attributes:
      key: of the rows.
      title: above it.
      width: in characters, with what parts it from the one before.
      format: of its values, as in ``f"{value:format}"``; None is a dash.
    """

    key: str
    title: str
    width: int
    format: str

    def show(self, row: Mapping[str, Any]) -> str:
        """The cell of a row."""
        value = row[self.key]
        return f"{'-' if value is None else format(value, self.format):>{self.width}}"


VALIDATION_COLUMNS = (
    Column("validation_top1", "validation top-1", 19, ".2%"),
    Column("validation_top5", "top-5", 9, ".2%"),
)


def describe(
    found: Mapping[str, Any],
    settings: Sequence[Column],
    scores: Sequence[Column],
    *,
    note: Callable[[Mapping[str, Any]], str] = lambda row: "",
) -> list[str]:
    """A sweep as lines for people; none if there is nothing to compare.

    Args:
      found: `Choice.results` among others.
      settings: columns that tell rows apart.
      scores: further columns; those that no row has are left out.
      note: what is to be said behind a row.
    """
    chosen, table = found["selected"], found["table"]
    scores = [column for column in scores if column.key in table[0]]
    if not scores:
        return []
    columns = [*settings, *scores]
    lines = ["".join(f"{column.title:>{column.width}}" for column in columns)]
    for row in table:
        is_chosen = all(row[column.key] == chosen[column.key] for column in settings)
        mark = "  <- chosen" if is_chosen and chosen["among"] > 1 else ""
        lines.append("".join(column.show(row) for column in columns) + note(row) + mark)
    return [*lines, f"chosen on {chosen['on']}"]
