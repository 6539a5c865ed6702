#!/usr/bin/env bash
# A pretraining run on a Cloud TPU slice, from creating the slice to deleting it.
#
#   launch/tpu.sh [--dry-run] COMMAND...
#
# Commands, in the order that a run needs them (all: every one but stop and resume):
#   bucket   make the bucket that holds data and results       once
#   upload   copy DATA, a packed data set, into the bucket     once
#   create   queue for a slice and wait until it is there
#   install  this repository and its requirements on all hosts
#   data     copy the data to all hosts, mount the results there
#   start    begin, or go on where the newest checkpoint is
#   watch    what the first host has printed, as it comes
#   stop     save and end: the same as a preemption's notice
#   resume   after a preemption: delete, create, install, data, start
#   fetch    copy the results here
#   delete   give the slice back; the bucket stays
#
# Set by variables: NAME, TYPE (v4-32, v5litepod-64, ...), ZONE, VERSION, BUCKET, DATA, ARGUMENTS.
# --dry-run prints each command and runs none.
set -euo pipefail

NAME=${NAME:-byol}
TYPE=${TYPE:-v4-32}
BUCKET=${BUCKET:-gs://$NAME-$TYPE}
DATA=${DATA:-$HOME/packed/imagenet2012}
ARGUMENTS=${ARGUMENTS:---config=configs/byol.py:imagenet-300 --config.data.name=$(basename "$DATA")}

case $TYPE in
  v4-*) ZONE=${ZONE:-us-central2-b} VERSION=${VERSION:-tpu-ubuntu2204-base} ;;
  v5litepod-*) ZONE=${ZONE:-us-west4-a} VERSION=${VERSION:-v2-alpha-tpuv5-lite} ;;
  *) : "${ZONE:?is not known for $TYPE: set ZONE}" "${VERSION:?is not known for $TYPE: set VERSION}" ;;
esac

dry_run=false

run() { # prints a command so that a shell would read it as it is, then runs it
  printf '%q ' "$@"
  echo
  $dry_run || "$@"
}

on_all_hosts() {
  run gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

bucket() { # with folders that can be renamed in one piece, which whole checkpoints need
  run gcloud storage buckets create "$BUCKET" --location="${ZONE%-*}" \
    --uniform-bucket-level-access --enable-hierarchical-namespace
}

upload() {
  run gcloud storage rsync --recursive "$DATA" "$BUCKET/data/$(basename "$DATA")"
}

create() {
  run gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
    --accelerator-type="$TYPE" --runtime-version="$VERSION" --spot
  local query=(gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE"
    --format="value(state.state)")
  printf '%q ' "${query[@]}" && echo "# until it says ACTIVE"
  $dry_run && return
  local state
  until state=$("${query[@]}") && [[ $state == ACTIVE ]]; do
    [[ $state == FAILED || $state == SUSPENDED ]] && { echo "The slice is $state." >&2; exit 1; }
    sleep 30
  done
}

install() { # the runtime's own Python is older than what is needed
  local archive=${TMPDIR:-/tmp}/byol_jax-$NAME.tar.gz
  run git archive --output="$archive" HEAD
  run gcloud compute tpus tpu-vm scp "$archive" "$NAME:byol_jax.tar.gz" --zone="$ZONE" --worker=all
  on_all_hosts 'mkdir -p byol_jax && tar -xzf byol_jax.tar.gz -C byol_jax && cd byol_jax &&
    python3 -m pip install --quiet --user uv && ~/.local/bin/uv venv --clear --python 3.12 &&
    ~/.local/bin/uv pip install --quiet ".[tpu]"'
}

data() {
  on_all_hosts "mkdir -p ~/data ~/runs &&
    gcloud storage rsync --recursive $BUCKET/data ~/data &&
    { command -v gcsfuse || sudo apt-get install -y gcsfuse; } &&
    { mountpoint -q ~/runs || gcsfuse --implicit-dirs ${BUCKET#gs://} ~/runs; }"
}

start() { # processes of a slice find each other without being told
  on_all_hosts "cd byol_jax && mkdir -p ~/logs && nohup .venv/bin/python -m byol_jax.main_loop \
$ARGUMENTS --config.data.dir=\$HOME/data --workdir=\$HOME/runs/runs/$NAME > ~/logs/$NAME.log 2>&1 < /dev/null &"
}

watch() {
  run gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=0 \
    --command="tail -n 50 -F logs/$NAME.log"
}

stop() {
  on_all_hosts "pkill -TERM -f [b]yol_jax.main_loop"
}

resume() {
  delete
  create
  install
  data
  start
}

fetch() {
  run gcloud storage rsync --recursive "$BUCKET/runs/$NAME" "runs/$NAME"
}

delete() {
  run gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
}

commands=(bucket upload create install data start watch stop resume fetch delete)
[[ ${1:-} == --dry-run ]] && dry_run=true && shift
[[ ${1:-} == all ]] && set -- bucket upload create install data start watch fetch delete
if (($# == 0)); then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
  exit 2
fi
for command in "$@"; do
  if [[ " ${commands[*]} " != *" $command "* ]]; then
    echo "Unknown command: $command. Valid: all ${commands[*]}" >&2
    exit 2
  fi
done
for command in "$@"; do
  "$command"
done
