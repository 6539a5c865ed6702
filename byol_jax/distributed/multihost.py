"""Several processes of one run: they meet, agree, and hear of each other's failures."""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from byol_jax import config as config_lib
from byol_jax.distributed import coordination, global_mesh, pmap

T = TypeVar("T")
UsageError = config_lib.UsageError


GATHER_BYTES = 64 << 20  # of all processes together, that a device holds while they are gathered


def is_alone() -> bool:
    """Whether this is the only process; asks no device, as `jax.process_count` does."""
    return not jax.distributed.is_initialized()


def is_writer() -> bool:
    """Whether this process writes logs, checkpoints and results: the first one does."""
    return jax.process_index() == 0


def assert_replicated(state: Any) -> None:
    """Raises on all processes if devices hold different copies: a mean over them was forgotten."""
    held = {
        jax.tree_util.keystr(path): global_mesh.checksums(leaf, pmap.AXIS)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
    }
    own = {  # of the devices of this process
        name: [int(np.asarray(shard.data)[0]) for shard in sums.addressable_shards]
        for name, sums in held.items()
    }
    wrong = next((name for name, sums in own.items() if len(set(sums)) > 1), None)
    if wrong:
        raise AssertionError(f"devices disagree about {wrong}")
    digest = hashlib.sha256(json.dumps(own and [s[0] for s in own.values()]).encode())
    if len(set(gather_json(digest.hexdigest(), what="comparing states"))) > 1:
        raise AssertionError("processes disagree about the state")


def gather_json(value: Any, *, what: str) -> list[Any]:
    """What can be written as JSON, of all processes in their order, on all processes.

    Args:
      value: of this process.
      what: is being done, for messages about a process that does not come.
    """
    group = coordination.group()
    if group is None:
        return [value]
    return [json.loads(part) for part in group.exchange(json.dumps(value).encode(), what)]


def waiting(what: str) -> contextlib.AbstractContextManager[None]:
    """Gives a limit and a name to a wait for devices, which may wait for other processes."""
    group = coordination.group()
    return contextlib.nullcontext() if group is None else group.watch.waiting(what)


def gather_rows(rows: np.ndarray, *, what: str) -> np.ndarray:
    """Joins arrays [n, ...] of all processes, in their order; each may have an n of its own."""
    if jax.process_count() == 1:
        return rows
    counts = gather_json(len(rows), what=what)
    return _gather(rows, counts, np.arange(sum(counts)), what)


def gather_sorted(indices: np.ndarray, *columns: np.ndarray, what: str) -> tuple[np.ndarray, ...]:
    """Joins the rows of all processes in the order of their indices.

    Args:
      indices: [n] of this process, ascending; no two rows of a run have the same.
      columns: [n, ...] each.
      what: is gathered, for messages.

    Returns:
      All indices, ascending, and the columns in this order.
    """
    if jax.process_count() == 1:
        return indices, *columns
    counts = gather_json(len(indices), what=what)
    everything = _gather(indices, counts, np.arange(sum(counts)), what)
    order = np.argsort(everything)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return everything[order], *(_gather(column, counts, places, what) for column in columns)


def _gather(rows: np.ndarray, counts: list[int], places: np.ndarray, what: str) -> np.ndarray:
    """Rows of all processes, each at its place, in the memory of the hosts.

    On their way they are on the devices, a few at a time: features of a large set are larger than
    a device.
    """
    found = np.empty((sum(counts), *rows.shape[1:]), rows.dtype)
    row_bytes = rows.itemsize * math.prod(rows.shape[1:]) * jax.process_count()
    # Few different sizes, as each is a program to be compiled.
    size = min(1 << max(counts).bit_length(), max(GATHER_BYTES // row_bytes, 1))
    starts = np.cumsum([0, *counts])[:-1]
    for offset in range(0, max(counts), size):
        own = rows[offset : offset + size]
        padded = np.zeros((size, *rows.shape[1:]), rows.dtype)
        padded[: len(own)] = own
        with waiting(what):
            parts = multihost_utils.process_allgather(padded)
        for start, count, part in zip(starts, counts, parts, strict=True):
            kept = min(max(count - offset, 0), size)
            found[places[start + offset : start + offset + kept]] = part[:kept]
    return found


def broadcast(tree: Any, *, what: str) -> Any:
    """The writer's arrays, bit for bit, on all processes; the others give some of equal shapes."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    leaves = [np.asarray(leaf) for leaf in leaves]
    # As bytes, since the broadcast is a sum, which has no -0.
    sent = [np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in leaves]
    with waiting(what):
        received = multihost_utils.broadcast_one_to_all(sent)
    whole = [
        np.asarray(data).view(leaf.dtype).reshape(leaf.shape)
        for data, leaf in zip(received, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, whole)


def together(call: Callable[[], T], *, what: str) -> T:
    """Calls on all processes; if it fails on one, it fails on all.

    Args:
      call: may not wait for other processes itself.
      what: it does, for messages about a process that does not come.

    Raises:
      UsageError: raised by another process; this one's own error comes as it is.
      OtherProcessError: likewise, for any other error.
    """
    result, own, report = None, None, None
    try:
        result = call()
    except Exception as error:
        own, report = error, {"text": str(error), "is_usage": isinstance(error, UsageError)}
    reports = gather_json(report, what=what)
    if own is not None:
        raise own
    for index, other in enumerate(reports):
        if other:
            kind = UsageError if other["is_usage"] else coordination.OtherProcessError
            raise kind(f"Process {index}: {other['text']}")
    return result


def on_writer(call: Callable[[], T], *, what: str) -> T:
    """Calls on the writer alone; all processes get its result, as JSON has it, or its error."""
    result = together(lambda: call() if is_writer() else None, what=what)
    return result if jax.process_count() == 1 else gather_json(result, what=what)[0]


class Vote:
    """Lets processes that were told to stop at different times stop after the same step."""

    def __init__(self):
        self._count = jax.pmap(lambda flag: jax.lax.psum(flag, pmap.AXIS), axis_name=pmap.AXIS)
        self._votes: jax.Array | None = None

    def any(self, flag: bool) -> bool:
        """Whether a process had given True one call before; with one process, the flag itself.

        The votes of a step are counted while the next one runs, so that nothing waits.
        """
        if jax.process_count() == 1:
            return flag
        # A sum on the devices, behind the step that was just handed out, so that all processes see
        # the same sum at the same step. Its result is read one call later, when the next step is
        # queued behind it: the devices are never idle for a vote, and a stop takes a step longer.
        previous = self._votes
        self._votes = self._count(np.full(jax.local_device_count(), flag, np.int32))
        if previous is None:
            return False
        with waiting("the end of a step"):
            jax.block_until_ready(previous)
        return bool(np.asarray(previous)[0])
