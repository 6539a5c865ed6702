"""What the state looks like on several devices, and the random key of a step."""

import contextlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.distributed import cluster, global_mesh, multihost, pmap

WAYS = {
    "pmap": (pmap.pmap_update, pmap.replicate),
    "one program": (
        lambda update: global_mesh.GlobalUpdate(update, pmap.AXIS),
        lambda state: global_mesh.replicate(state, pmap.AXIS),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_shard_and_replicate_give_an_update_what_it_gives_back(way):
    traces = []

    def update(state, batch):
        traces.append(1)
        total = jax.lax.psum(batch["x"].sum(), pmap.AXIS)
        return {"n": state["n"] + total}, {"total": total}, batch["x"]

    make, replicate = WAYS[way]
    step, state = make(update), replicate({"n": np.float32(0)})
    batch = pmap.shard({"x": np.arange(8, dtype=np.float32)})
    assert batch["x"].shape == (4, 2)
    step.lower(state, batch).compile()
    for _ in range(3):
        given = state["n"]
        state, metrics, outputs = step(state, batch)
        assert given.is_deleted()
    assert state["n"].shape == () and state["n"] == 3 * 28 and metrics["total"] == 28
    np.testing.assert_array_equal(outputs, batch["x"])
    assert len(traces) == 1
    multihost.assert_replicated(state)


def test_several_processes_use_one_program(monkeypatch):
    monkeypatch.setattr(pmap.jax, "process_count", lambda: 2)
    assert isinstance(pmap.pmap_update(lambda state, batch: state), global_mesh.GlobalUpdate)


def test_assert_replicated_notices_a_forgotten_mean():
    update = pmap.pmap_update(lambda state, batch: (batch["x"].sum(), {}, batch["x"]))
    wrong, _, _ = update(jnp.zeros(()), pmap.shard({"x": np.arange(4.0)}))
    with pytest.raises(AssertionError, match="disagree"):
        multihost.assert_replicated({"w": wrong})


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "bfloat16", "float32"])
def test_copies_are_compared_bit_by_bit(dtype):
    """Two numbers that change places, a lost sign of zero, and numbers that are none."""
    devices = jax.local_devices()[:2]
    sharding = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.array(devices), (pmap.AXIS,)), jax.sharding.PartitionSpec()
    )

    def held(*copies):
        parts = [
            jax.device_put(jnp.asarray(copy).astype(dtype), device)
            for copy, device in zip(copies, devices, strict=True)
        ]
        return jax.make_array_from_single_device_arrays(parts[0].shape, sharding, parts)

    multihost.assert_replicated({"w": held([0, 1, 1], [0, 1, 1])})
    with pytest.raises(AssertionError, match="devices disagree about"):
        multihost.assert_replicated({"w": held([0, 1, 1], [1, 0, 1])})
    if "float" in dtype:
        multihost.assert_replicated({"w": held([np.nan], [np.nan])})
        with pytest.raises(AssertionError, match="disagree"):
            multihost.assert_replicated({"w": held([0.0], [-0.0])})


def test_keys_differ_by_seed_and_step():
    keys = jax.vmap(lambda seed, step: jax.random.key_data(pmap.step_key(seed, step)))
    seeds, steps = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert len(np.unique(keys(seeds, steps), axis=0)) == 4
    np.testing.assert_array_equal(keys(seeds, steps), keys(seeds, steps))


FLAGS = {
    "one of three": ((None, 2, None), "all three flags or none"),
    "no port": (("here", 2, 0), "is not HOST:PORT"),
    "no host": ((":1234", 2, 0), "is not HOST:PORT"),
    "too large": (("here:1234", 2, 2), "from 0 to 1"),
    "negative": (("here:1234", 2, -1), "from 0 to 1"),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags_that_make_no_sense_are_refused(case):
    arguments, message = FLAGS[case]
    with pytest.raises(pmap.UsageError, match=message):
        cluster.initialize(*arguments)


def test_one_process_needs_no_other():
    assert multihost.gather_json({"a": [1]}, what="") == [{"a": [1]}]
    rows = np.arange(6).reshape(3, 2)
    assert (
        multihost.gather_rows(rows, what="") is rows and multihost.broadcast(rows, what="") is rows
    )
    assert multihost.on_writer(lambda: 3, what="") == multihost.together(lambda: 3, what="") == 3
    with pytest.raises(KeyError, match="own"):
        multihost.on_writer(lambda: {}["own"], what="")
    assert [multihost.Vote().any(flag) for flag in (False, True)] == [False, True]


@pytest.fixture
def three_processes(monkeypatch):
    """Calls a function in three threads that take the place of processes; gives all results."""
    me, barrier = threading.local(), threading.Barrier(3)
    given, sizes = [None] * 3, []

    def exchange(value):
        given[me.index] = value
        barrier.wait(10)
        found = list(given)
        barrier.wait(10)
        return found

    def allgather(rows):
        sizes.append(3 * rows.nbytes)
        return np.stack(exchange(rows))

    monkeypatch.setattr(pmap.jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost, "gather_json", lambda value, what: exchange(value))
    monkeypatch.setattr(multihost, "waiting", lambda what: contextlib.nullcontext())
    monkeypatch.setattr(multihost.multihost_utils, "process_allgather", allgather)

    def call(function):
        results = [None] * 3

        def run(index):
            me.index = index
            results[index] = function(index)

        threads = [threading.Thread(target=run, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return results, max(sizes)

    return call


@pytest.mark.parametrize("limit", [64, 4096, 64 << 20])
def test_rows_of_all_processes_come_in_order_and_a_few_at_a_time(
    limit, three_processes, monkeypatch
):
    monkeypatch.setattr(multihost, "GATHER_BYTES", limit)
    features = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    order = np.arange(50, dtype=np.int64) * 7
    owned = [order[index::3] for index in range(3)]
    owned[2] = owned[2][:5]  # the others were bad images

    def gather(index):
        own = owned[index]
        return multihost.gather_sorted(
            own, features[own // 7], (own // 7).astype(np.int32), what=""
        )

    results, largest = three_processes(gather)
    kept = np.sort(np.concatenate(owned))
    for indices, gathered, numbers in results:
        np.testing.assert_array_equal(indices, kept)
        np.testing.assert_array_equal(gathered, features[kept // 7])
        np.testing.assert_array_equal(numbers, kept // 7)
        assert (indices.dtype, gathered.dtype, numbers.dtype) == (np.int64, np.float32, np.int32)
    assert largest <= max(limit, 3 * 12)


def test_rows_are_joined_in_the_order_of_processes(three_processes):
    results, _ = three_processes(
        lambda index: multihost.gather_rows(np.full((index, 2), index), what="")
    )
    for joined in results:
        np.testing.assert_array_equal(joined, [[1, 1], [2, 2], [2, 2]])
