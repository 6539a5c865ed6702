#!/usr/bin/env bash
# Pretrains three seeds on each of two sets and measures them in every way, beside what they have to
# beat. About three hours on two CPU cores; rerun it to resume.
#
#   TFDS_DATA_DIR=... experiments/evaluation/run.sh [RUNS]
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${1:-runs/evaluation}

task() { # name of the result, config, keys...
  local name=$1 config=$2
  shift 2
  [ -f "$runs/$name/result.json" ] ||
    python -m byol_jax.main_loop --config="configs/$config" --workdir="$runs/$name" "$@"
}

few_labels=(--config.batch_size=64 --config.epochs='(50.0, 100.0)'
  --config.base_learning_rates='(0.02, 0.1, 0.5, 2.0)')
for set in patterns cifar10; do
  for seed in 0 1 2; do
    run=$runs/$set-$seed
    [ -d "$run/checkpoints" ] ||
      python -m byol_jax.main_loop --config="configs/byol.py:$set" --config.seed=$seed --workdir="$run"
    for weights in checkpoint random; do
      at=(--config.checkpoint="$run" --config.weights=$weights --config.seed=$seed)
      task "$set-knn-$weights-$seed" knn.py "${at[@]}"
      task "$set-linear-cached-$weights-$seed" linear_eval.py "${at[@]}" --config.features=cached
    done
  done
  at=(--config.checkpoint="$runs/$set-0" --config.weights=pixels)
  task "$set-knn-pixels-0" knn.py "${at[@]}"
  task "$set-linear-cached-pixels-0" linear_eval.py "${at[@]}" --config.features=cached
done
for set in patterns cifar10; do
  for weights in checkpoint random; do
    at=(--config.checkpoint="$runs/$set-0" --config.weights=$weights)
    task "$set-logistic-$weights-0" transfer.py "${at[@]}"
    for share in 1percent 10percent; do
      task "$set-$share-$weights-0" "semi_supervised.py:$share" "${at[@]}" "${few_labels[@]}"
    done
  done
done
for seed in 0 1 2; do
  for set in patterns cifar10; do
    for weights in checkpoint random; do
      at=(--config.checkpoint="$runs/$set-$seed" --config.weights=$weights --config.seed=$seed)
      task "$set-linear-augmented-$weights-$seed" linear_eval.py "${at[@]}"
    done
  done
done
task patterns-logistic-pixels-0 transfer.py --config.checkpoint="$runs/patterns-0" --config.weights=pixels
python experiments/evaluation/collect.py "$runs"
