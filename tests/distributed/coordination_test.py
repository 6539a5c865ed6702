"""What several processes tell each other, with a store in memory and a clock of the test."""

import os
import threading

import pytest

from byol_jax.data import agreement
from byol_jax.distributed import cluster, coordination, liveness, multihost, pmap
from tests.conftest import make_config


class Store:
    """All that `kv_store.Store` promises, between threads."""

    def __init__(self):
        self.values = {}
        self._changed = threading.Condition()

    def set(self, key, value):
        with self._changed:
            self.values[key] = value
            self._changed.notify_all()

    def get(self, key, seconds):
        with self._changed:
            self._changed.wait_for(lambda: key in self.values, seconds)
            return self.values.get(key)

    def list(self, prefix):
        found = dict(self.values)
        return {int(k.split("/")[1]): v for k, v in found.items() if k.startswith(f"{prefix}/")}

    def delete(self, key):
        self.values.pop(key, None)


def make_watches(count, **options):
    """Watches over each other; what they say is in ``said``."""
    store, said = Store(), []
    return [liveness.Watch(store, i, count, say=said.append, **options) for i in range(count)], said


def make_groups(count):
    store = Store()
    watches = [liveness.Watch(store, index, count) for index in range(count)]
    groups = [coordination.Group(store, index, count, w) for index, w in enumerate(watches)]
    return groups, store


def at_once(*calls):
    """What calls give or raise in threads of their own."""
    found = [None] * len(calls)

    def run(index):
        try:
            found[index] = calls[index]()
        except Exception as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found


def test_an_exchange_gives_all_values_to_all_and_leaves_little_behind():
    groups, store = make_groups(3)
    for number in range(5):
        values = [f"{number} of {index}".encode() for index in range(3)]
        calls = [
            lambda g=g, v=v: g.exchange(v, "greeting") for g, v in zip(groups, values, strict=True)
        ]
        assert at_once(*calls) == [values] * 3
    assert len(store.values) == 3


def test_processes_in_different_places_are_told_so():
    groups, _ = make_groups(2)
    first, second = at_once(
        lambda: groups[0].exchange(b"", "saving"), lambda: groups[1].exchange(b"", "probing")
    )
    assert isinstance(first, coordination.OtherProcessError)
    assert "Process 1 is at 'probing', process 0 at 'saving'" in str(first)
    assert "Process 0 is at 'saving'" in str(second)


def test_a_failed_process_is_named_by_the_others_with_its_message():
    (first, second), _ = make_watches(2)
    second.beat()
    second._post_failure("ValueError: bad thing")
    first.beat()
    now = first._judged
    assert first.judge(now) is None  # there is time to fail by itself
    message = first.judge(now + liveness.GRACE_SECONDS + 1)
    assert message.startswith("Process 1 on ") and message.endswith("failed: ValueError: bad thing")
    assert first.explain() == message


def advance(watch, now, seconds):
    """Judges as often as the thread does; the first message, and when."""
    for _ in range(int(seconds)):
        now += 1
        message = watch.judge(now)
        if message:
            return message, now
    return None, now


def test_a_silent_process_is_mentioned_first_and_later_taken_for_dead():
    (first, second), said = make_watches(2, silent_seconds=100)
    second.beat()
    first.beat()
    start = first._judged
    message, now = advance(first, start, 500)
    assert 100 <= now - start <= 102
    assert "Process 1 on" in message and "silent for 10" in message and "taken for dead" in message
    assert len(said) == 1 and "--silent_seconds" in said[0]


def test_a_process_that_stood_still_itself_accuses_nobody():
    (first, second), said = make_watches(2, silent_seconds=100)
    second.beat()
    first.beat()
    assert first.judge(first._judged + 1000) is None and not said
    assert advance(first, first._judged, 90)[0] is None


def test_no_wait_is_longer_than_its_limit_and_who_is_late_is_named():
    (first, second), said = make_watches(2, wait_seconds=300)
    with second.waiting("reading a disk"), first.waiting("saving"):
        second.beat()
        first.beat()
        now, message = first._judged, None
        while not message and now < first._judged + 10_000:
            second.beat()
            first.beat()
            first._heard[1] = now
            message, now = advance(first, now, 1)
    assert "Process 0 has waited 30" in message and "at 'saving'; Process 1 on" in message
    assert "at 'reading a disk'" in message and "Nothing waits longer than 300 s" in message
    assert said and "at 'reading a disk'" in said[0]


def test_a_process_that_is_gone_without_a_word_is_named():
    (first, second), _ = make_watches(2)
    with second.waiting("step 7"):
        second.beat()
    first.beat()
    first.lose(1)
    message, _ = advance(first, first._judged, 10)
    assert "Process 1 on" in message and "gone without a word" in message and "step 7" in message


@pytest.fixture
def two_processes(monkeypatch):
    """Makes what this process says look as if another one had said the second thing."""

    def pretend(other):
        monkeypatch.setattr(cluster.jax, "process_count", lambda: 2)
        monkeypatch.setattr(multihost, "gather_json", lambda value, what: [value, other(value)])

    return pretend


CHANGES = {
    "seed": 1,
    "total_steps": 5,
    "log_every_steps": 2,
    "augment.view1.brightness": 0.3,
    "optimizer.lars.momentum": 0.8,
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_that_differs_between_processes_is_named(key, two_processes):
    two_processes(lambda facts: facts | {f"--config.{key}": CHANGES[key]})
    with pytest.raises(pmap.UsageError, match=rf"Process 1 differs .*--config\.{key} is "):
        agreement.require_same_program(make_config())


@pytest.mark.parametrize("name", ["version of jax", "version of numpy", "code of byol_jax"])
def test_versions_and_code_that_differ_are_named(name, two_processes):
    def other(facts):
        assert name in facts
        return facts | {name: "0"}

    two_processes(other)
    with pytest.raises(pmap.UsageError, match=f"{name} is 0 there"):
        agreement.require_same_program(make_config())


def test_where_the_data_lies_may_differ(two_processes):
    def other(facts):
        assert not any(key.removeprefix("--config.") in agreement.HOST_KEYS for key in facts)
        return facts

    two_processes(other)
    agreement.require_same_program(make_config())
    assert set(agreement.HOST_KEYS) <= set(pmap.config_lib.flatten(make_config().to_dict()))


def test_images_that_differ_between_processes_are_refused(two_processes):
    from byol_jax.data import datasets

    data = datasets.load("patterns", "test")
    changed = data.images.copy()
    changed[0, 0, 0] += 1
    other = agreement.digest(data.replace(images=changed))
    two_processes(lambda facts: facts | {"fingerprint of patterns (test)": other})
    with pytest.raises(pmap.UsageError, match="fingerprint of patterns"):
        agreement.require_same_data("patterns (test)", data)


@pytest.mark.parametrize("task", agreement.LONE_TASKS)
def test_a_task_that_writes_one_file_is_refused_in_two_processes(task, two_processes):
    from byol_jax import main_loop

    assert task in main_loop.TASKS
    two_processes(lambda facts: facts)
    with pytest.raises(pmap.UsageError, match=f"'{task}' runs in one process, and 2 were"):
        agreement.require_same_program(make_config(task=task))


def test_without_process_0_the_others_end_at_once_with_a_line(monkeypatch):
    """Before JAX aborts them with a dump; the end of another process leaves time for its word."""
    (_, watch, _), said = make_watches(3)
    ends = []
    monkeypatch.setattr(os, "_exit", ends.append)
    watch.lose(2)
    assert not ends
    watch.lose(0)
    watch.lose(0)
    assert ends == [1]
    assert len(said) == 1 and said[0].startswith("Error: Process 0 is gone without a word")


def test_after_the_end_of_a_run_process_0_may_go(monkeypatch):
    (_, watch), said = make_watches(2)
    monkeypatch.setattr(os, "_exit", lambda status: said.append(status))
    watch.stand_down()
    watch.lose(0)
    assert not said
