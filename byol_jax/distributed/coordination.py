"""What the processes of a run tell each other: small values, by name, with a limit to every wait.

Values go through the key-value store of JAX's coordination service, which is part of process 0, and
so touch no device. `liveness` ends a process whose wait is in vain.
"""

import jax

from byol_jax.distributed import kv_store, lifeline, liveness


class OtherProcessError(RuntimeError):
    """Another process of this run failed or is gone."""


class Group:
    """The processes of a run, as one of them sees them.

    Args:
      store: that all of them share.
      index: of this one.
      count: of all.
      watch: over the others.
    """

    def __init__(self, store: kv_store.Store, index: int, count: int, watch: liveness.Watch):
        self.watch = watch
        self._store, self._index, self._count, self._round = store, index, count, 0

    def exchange(self, value: bytes, what: str) -> list[bytes]:
        """The values of all processes, in their order; all have to call it.

        Raises:
          OtherProcessError: another process is in another place of the program, or process 0 is
            gone.
        """
        self._round += 1
        key = f"values/{self._round}"
        with self.watch.waiting(what):
            try:
                self._store.set(f"{key}/{self._index}", what.encode() + b"\0" + value)
                found = [self._fetch(f"{key}/{index}") for index in range(self._count)]
                # Whoever has come here has read all values of the round before.
                self._store.delete(f"values/{self._round - 1}/{self._index}")
            except jax.errors.JaxRuntimeError as error:
                raise OtherProcessError(
                    f"Process 0 does not answer any more: {liveness.first_line(str(error))}"
                ) from None
        places, values = zip(*(part.split(b"\0", 1) for part in found), strict=True)
        for index, place in enumerate(places):
            if place.decode() != what:
                raise OtherProcessError(
                    f"Process {index} is at '{place.decode()}', process {self._index} at '{what}': "
                    "they do not do the same. Start all of them anew, with equal commands."
                )
        return list(values)

    def _fetch(self, key: str) -> bytes:
        seconds = 1.0
        while (value := self._store.get(key, seconds)) is None:  # the watch sees to the limit
            seconds = min(2 * seconds, 10.0)  # a signal is heard between; a large value takes long
        return value

    def finish(self) -> None:
        """Waits for all to come to their end, after which none of them is missed."""
        self.exchange(b"", "the end of the run")
        self.watch.stand_down()


_group: Group | None = None


def start(silent_seconds: float) -> None:
    """Begins to watch over the processes that JAX has just brought together."""
    global _group
    store, index = kv_store.JaxStore(), jax.process_index()
    watch = liveness.Watch(store, index, jax.process_count(), silent_seconds=silent_seconds)
    _group = Group(store, index, jax.process_count(), watch)
    watch.start()
    if index == 0:
        store.set("port", str(lifeline.listen(watch.lose)).encode())
        return
    port = store.get("port", lifeline.CONNECT_SECONDS)
    if port:
        lifeline.connect(kv_store.host(), int(port), index, watch.lose)


def fail(message: str) -> None:
    """`liveness.Watch.fail`, if there are several processes."""
    if _group is not None:
        _group.watch.fail(message)


def stand_down() -> None:
    """`liveness.Watch.stand_down`, if there are several processes."""
    if _group is not None:
        _group.watch.stand_down()


def explain() -> str | None:
    """`liveness.Watch.explain`, if there are several processes."""
    return _group and _group.watch.explain()


def finish() -> None:
    """`Group.finish`, if there are several processes."""
    if _group is not None:
        _group.finish()


def group() -> Group | None:
    """The processes of this run; None if it has only one."""
    if _group is None and jax.process_count() > 1:
        start(lifeline.SILENT_SECONDS)
    return _group
