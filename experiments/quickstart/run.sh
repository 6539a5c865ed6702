#!/usr/bin/env bash
# All runs of this experiment, one after the other: about half an hour on two cores.
# usage: experiments/quickstart/run.sh [NAME ...]   (from the top of the repository)
set -euo pipefail

run() {  # name, then overrides of the default config
  local name=$1; shift
  python -m byol_jax.main_loop --config=configs/byol.py --workdir="runs/quickstart/$name" "$@"
  cp "runs/quickstart/$name/metrics.jsonl" "experiments/quickstart/results/$name.jsonl"
}

declare -A overrides=(
  [seed0]="--config.seed=0"
  [seed1]="--config.seed=1"
  [seed2]="--config.seed=2"
  [no_predictor]="--config.objective.name=byol_no_predictor --config.total_steps=400"
  [tau1]="--config.objective.base_target_ema=1.0"
  [tau0]="--config.objective.base_target_ema=0.0 --config.objective.target_ema_schedule=constant"
  [adamw]="--config.optimizer.name=adamw --config.objective.base_target_ema=0.95"
)
order=(seed0 seed1 seed2 no_predictor tau1 tau0 adamw)

mkdir -p experiments/quickstart/results
for name in "${@:-${order[@]}}"; do
  # shellcheck disable=SC2086  # overrides are words
  run "$name" ${overrides[$name]}
done
