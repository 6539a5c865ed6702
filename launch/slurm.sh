#!/usr/bin/env bash
# A pretraining run on GPU nodes: one process a GPU, which find each other by SLURM's variables.
#
#   sbatch launch/slurm.sh [ARGUMENTS OF byol_jax.main_loop]
#
# Ten minutes before its time is over, SLURM sends SIGTERM to the run, which saves and ends, and this
# script queues it again; so it does after a preemption. The same workdir goes on where it was.
# DRY_RUN=1 launch/slurm.sh prints each command and runs none.
#SBATCH --job-name=byol
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

WORKDIR=${WORKDIR:-runs/${SLURM_JOB_NAME:-byol}}
PYTHON=${PYTHON:-.venv/bin/python}
(($# > 0)) || set -- --config=configs/byol.py:imagenet-300

run() {
  printf '%q ' "$@"
  echo
  [[ -n ${DRY_RUN:-} ]] || "$@"
}

stopped=false
trap 'stopped=true; scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM  # to all tasks of the step

# Every task sees all GPUs of its node and takes its own: NCCL needs to see both ends of a copy.
command=(srun --kill-on-bad-exit=1 --gpu-bind=none "$PYTHON" -m byol_jax.main_loop
  "$@" --workdir="$WORKDIR")
if [[ -n ${DRY_RUN:-} ]]; then
  run "${command[@]}"
  run scontrol requeue "${SLURM_JOB_ID:-JOB}"
  exit
fi
run "${command[@]}" &
pid=$!
status=0
wait "$pid" || status=$?
while kill -0 "$pid" 2>/dev/null; do # the signal ended the wait, not the run
  status=0
  wait "$pid" || status=$?
done
if $stopped && ((status == 0)); then
  run scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
