"""What a run will take: bounds of named accelerators, and that nothing is written."""

import pytest

from byol_jax.models import flops
from byol_jax.tasks import estimate
from byol_jax.training import accelerators, budget, budget_plan
from configs import estimate as config_file
from tests.support import classified


def test_a_step_takes_the_larger_of_two_bounds_and_a_batch_may_not_fit():
    chip = accelerators.Accelerator(flops=100.0, bandwidth=10.0, memory=50.0)
    bound = accelerators.bounds(chip, flops=80.0, moved=10.0, kept=49.0)
    assert bound.computing == pytest.approx(80 / (0.4 * 100)) and bound.memory == 1.0
    assert bound.seconds == bound.computing and bound.fits
    assert accelerators.bounds(chip, flops=1.0, moved=90.0, kept=51.0)[1:] == (9.0, False)
    assert accelerators.bounds(chip, flops=1.0, moved=None, kept=None).seconds == 1 / 40


def test_a_larger_budget_buys_a_larger_run():
    config = config_file.get_config("folder")
    facts = budget_plan.Facts(3000, 200, False, False, 0.5, 0.1, False, 1)

    def seconds_per_image(trial):
        size = trial.data.image_size
        units = flops.encoder_units(trial.model.encoder, image_size=size, stem=trial.model.stem)
        return sum(unit.once for unit in units) / 1e10

    head, titles, *rows = estimate.budgets(config, facts, seconds_per_image)
    assert "budget_minutes" in head and titles.split()[0] == "encoder"
    assert [row.split()[:2] for row in rows] == [["10", "min"], ["1", "h"], ["8", "h"]]
    sizes = [int(row.split()[3]) for row in rows]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert config.budget_minutes is None and not budget.has_length(config)


@pytest.mark.slow
def test_a_run_is_estimated_and_nothing_is_written(tmp_path, capsys):
    photos = classified.write_photos(tmp_path / "photos", count=12)
    config = config_file.get_config("folder")
    config.data.dir, config.estimate.seconds = str(photos), 0.1
    config.data.labels = "none"
    estimate.run(config, tmp_path / "run")
    text = capsys.readouterr().err
    for part in ("FLOP in all", "On disk:", "Here, on", "NVIDIA H100", "10 min", "8 h"):
        assert part in text
    assert not (tmp_path / "run").exists()
