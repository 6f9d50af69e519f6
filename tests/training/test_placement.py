"""A run on a mesh: the numbers of one device, and the bytes of a part of it."""

import collections
import contextlib
import json
import re
import signal

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmpareto_jax import training
from mmpareto_jax.data import eval_batches, train_batches
from mmpareto_jax.training._run.placement import (
    WORTH,
    Placement,
    divided_dimensions,
    placement_of,
)
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._tasks.settled import settled

PLACEMENTS = (
    ("data=8", None),
    ("data=4,model=2", None),
    ("data=8", "params"),
    ("data=4,model=2", "params"),
)


class Net(nnx.Module):
    """Kernels that are worth dividing, and a head that is not."""

    def __init__(self, outputs, rngs):
        self.first = nnx.Linear(64, 128, rngs=rngs)
        self.norm = nnx.BatchNorm(128, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(128, outputs, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(nnx.tanh(self.norm(self.first(x)))))


def own(number):
    """A user's task of so many objectives, whose splits divide by nothing."""
    rng = np.random.default_rng(0)

    def arrays(size):
        x = rng.normal(size=(size, 64)).astype(np.float32)
        return {"x": x, "y": np.tanh(x[:, :number])}

    def loss(k):
        return lambda y, batch: (y[:, k] - batch["y"][:, k]) ** 2

    return training.task(
        lambda rngs: Net(number, rngs),
        {f"loss{k}": loss(k) for k in range(number)},
        {"train": arrays(67), "validation": arrays(21), "test": arrays(13)},
        forward=lambda model, batch: model(batch["x"]),
        name=f"own{number}",
        eval_batch=16,
    )


def program(task, placement, **options):
    task, config = settled(task, training.Config(batch_size=16, steps=4, **options))
    found = make_program(config, task, placement=placement)
    batches = train_batches(
        task.data["train"], batch_size=16, seed=0, rows=placement.rows
    )
    return found, (placement.batch(batch, 16) for batch in batches)


def assert_close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(numbers(found), numbers(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


def numbers(tree):
    """The leaves' numbers; those of random keys, too."""
    return [
        np.asarray(jax.random.key_data(x) if is_key(x) else x)
        for x in jax.tree.leaves(tree)
    ]


def is_key(x):
    return jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)


def largest_bytes(tree):
    """On one device, of all that lie there."""
    held = collections.Counter()
    for x in jax.tree.leaves(tree):
        for shard in x.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return max(held.values())


SIX = training.Config(batch_size=16, steps=6)


@pytest.fixture(scope="module", params=[2, 8])
def alone(request, tmp_path_factory):
    """A user's task of so many objectives, on one device."""
    workdir = tmp_path_factory.mktemp("one")
    task = own(request.param)
    return task, training.train(task, SIX, workdir)


@pytest.mark.parametrize(("mesh", "shard"), PLACEMENTS)
def test_a_users_task_is_trained_as_on_one_device(alone, mesh, shard, tmp_path):
    task, alone = alone
    found = training.train(task, SIX, tmp_path / "mesh", mesh=mesh, shard=shard)
    assert_close(found.state, alone.state)
    for split, scores in alone.scores.items():
        assert found.scores[split] == pytest.approx(scores, rel=1e-4)
    for a, b in zip(
        training.read_metrics(tmp_path / "mesh"),
        training.read_metrics(alone.workdir),
        strict=True,
    ):
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)
    recorded = json.loads((tmp_path / "mesh" / "config.json").read_text())
    sizes = {k: int(n) for k, n in (x.split("=") for x in mesh.split(","))}
    assert (recorded["mesh"], recorded["shard"]) == (sizes, shard)
    assert recorded["processes"] == 1


@pytest.mark.parametrize("name", ["av-digits", "multi-digits"])
@pytest.mark.parametrize(
    ("mesh", "shard"),
    [
        PLACEMENTS[3],
        *(pytest.param(*x, marks=pytest.mark.slow) for x in PLACEMENTS[:3]),
    ],
)
def test_a_built_in_task_is_trained_as_on_one_device(name, mesh, shard):
    config = training.Config(name, train_examples=64, batch_size=16, width=32, steps=3)
    task = training.make_task(config)
    found = {}
    for placement in (Placement(), placement_of(mesh, shard)):
        made = make_program(config, task, placement=placement)
        state = made.state
        batches = train_batches(
            task.data["train"], batch_size=16, seed=0, transform=task.transform
        )
        for _ in range(3):
            state, metrics = made.step(state, placement.batch(next(batches), 16))
        scores = made.evaluate(state, task.data["validation"])
        found[placement] = (state.params, state.rest, metrics, scores)
    alone, spread = found.values()
    assert_close(spread[:3], alone[:3])
    assert spread[3] == pytest.approx(alone[3], rel=1e-3, abs=1e-4)


@contextlib.contextmanager
def compilations():
    """What is compiled meanwhile."""
    found = []

    def listen(event, _, **__):
        if event.endswith("backend_compile_duration"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_compilations_are_seen():
    with compilations() as found:
        jax.jit(lambda x: 3 * x + 0.25)(1.0)
    assert found


@pytest.mark.parametrize(("mesh", "shard"), PLACEMENTS)
def test_states_keep_their_place_and_nothing_is_compiled_twice(mesh, shard):
    placement = placement_of(mesh, shard)
    made, batches = program(own(2), placement)
    state, before = made.state, jax.tree.map(lambda x: x.sharding, made.state)
    state, metrics = made.step(state, next(batches))
    later = [next(batches) for _ in range(3)]
    again = made.restart(1, 0.1)
    with compilations() as compiled:
        for batch in later:
            state, metrics = made.step(state, batch)
        made.step(again, batch)
    assert compiled == []
    packing = made.tally(state, batch)
    state, tally = made.logged(state, packing.empty(), batch)
    with compilations() as compiled:
        state, tally = made.logged(state, tally, batch)
        state, tally = made.logged(state, packing.empty(), batch)
    assert compiled == []
    after = jax.tree.map(lambda x: x.sharding, state)
    same = jax.tree.map(
        lambda x, a, b: a.is_equivalent_to(b, x.ndim), state, before, after
    )
    assert all(jax.tree.leaves(same))
    assert all(x.is_fully_replicated for x in jax.tree.leaves(metrics))


@pytest.mark.parametrize(
    ("mesh", "shard", "parts"),
    [
        (*PLACEMENTS[0], 1),
        (*PLACEMENTS[1], 2),
        (*PLACEMENTS[2], 8),
        (*PLACEMENTS[3], 8),
    ],
)
def test_parameters_and_optimiser_state_are_divided(mesh, shard, parts):
    made, _ = program(own(2), placement_of(mesh, shard))
    kernel = made.state.params["first"]["kernel"].get_value()
    momentum = [x for x in jax.tree.leaves(made.state.opt_state) if x.ndim == 2]
    momentum = next(x for x in momentum if x.shape == kernel.shape)
    for x in (kernel, momentum):
        assert x.addressable_shards[0].data.nbytes * parts == x.nbytes
    large = 2 * kernel.nbytes
    both = (made.state.params, made.state.opt_state)
    small = sum(x.nbytes for x in jax.tree.leaves(both)) - large
    assert largest_bytes(both) == large // parts + small


def collectives(made, batch):
    """Kind -> the sizes of what is sent."""
    text = made.step.lower(made.state, batch).compile().as_text()
    found = collections.defaultdict(list)
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    for shapes, kind in re.findall(rf"= (\S.*?) ({kinds})(?:-start)?\(", text):
        for dimensions in re.findall(r"\w\d+\[([\d,]*)\]", shapes):
            found[kind].append(tuple(int(n) for n in dimensions.split(",") if n))
    return found


@pytest.mark.parametrize("number", [2, 8])
def test_what_is_sent_of_a_divided_batch(number):
    """The rows are summed, each once; nothing is gathered."""
    made, batches = program(own(number), placement_of("data=8"))
    sent = collectives(made, next(batches))
    assert set(sent) == {"all-reduce"}
    kernels = sum(np.prod(x) for x in sent["all-reduce"] if 64 * 128 in (np.prod(x),))
    stacked = sum(np.prod(x) for x in sent["all-reduce"] if x == (number, 64, 128))
    assert kernels + stacked == number * 64 * 128


@pytest.mark.parametrize("number", [2, 8])
def test_what_is_sent_of_divided_parameters(number):
    """They are gathered, which is what dividing them costs; rows are not."""
    made, batches = program(own(number), placement_of("data=8", "params"))
    sent = collectives(made, next(batches))
    assert set(sent) <= {"all-reduce", "all-gather", "reduce-scatter"}
    assert [x for x in sent["all-gather"] if np.prod(x) >= WORTH] == [(64, 128)]


def test_methods_that_look_between_epochs_keep_states_in_place(tmp_path):
    config = training.Config(
        train_examples=32, batch_size=16, width=32, epochs=6, method="relearning"
    )
    found = training.train(config, tmp_path, mesh="data=4,model=2", shard="params")
    expected = placement_of("data=4,model=2", "params").state(found.state.params)
    same = jax.tree.map(
        lambda x, at: x.sharding.is_equivalent_to(at, x.ndim),
        found.state.params,
        expected,
    )
    assert all(jax.tree.leaves(same))


def test_a_run_goes_on_elsewhere(tmp_path):
    """8 devices, then 1, then 4: to rounding as on 8; as on them exactly, if on 8."""
    task, long = own(2), training.Config(batch_size=16, steps=12)

    def stop_at(step):
        class Stop(training.Callback):
            def on_tick(self, now):
                if now == step:
                    signal.raise_signal(signal.SIGINT)

        return Stop()

    def part(name, step, resume, mesh):
        calls = [stop_at(step)] if step else []
        return training.train(
            task, long, tmp_path / name, resume=resume, callbacks=calls, mesh=mesh
        )

    whole = part("whole", None, False, "data=8")
    part("same", 5, False, "data=8")
    same = part("same", None, True, "data=8")
    for x, y in zip(
        jax.tree.leaves(same.state.params),
        jax.tree.leaves(whole.state.params),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)
    part("moved", 3, False, "data=8")
    part("moved", 7, True, None)
    moved = part("moved", None, True, "data=2,model=2")
    assert_close(moved.state.params, whole.state.params)
    record = json.loads((tmp_path / "moved" / "config.json").read_text())
    assert [x["mesh"] for x in [record, *record["resumed"]]] == [
        {"data": 8},
        None,
        {"data": 2, "model": 2},
    ]
    alone = training.evaluate(tmp_path / "whole", task=task)
    spread = training.evaluate(
        tmp_path / "whole", task=task, mesh="auto", shard="params"
    )
    assert spread.scores["test"] == pytest.approx(alone.scores["test"], rel=1e-4)


@pytest.mark.parametrize("size", [16, 13])
def test_a_batch_on_the_mesh_is_the_batch(size):
    placement = placement_of("data=4,model=2")
    x = np.arange(size * 3, dtype=np.float64).reshape(size, 3)
    found = placement.batch({"x": x[placement.rows(size)]}, size)["x"]
    np.testing.assert_array_equal(np.asarray(found), x)
    assert found.dtype == np.float32
    assert found.sharding.spec == (P("data") if size == 16 else P())


def test_batches_of_some_rows_are_rows_of_the_batches():
    """What a process reads; where a transform draws, each row as in the whole batch."""
    data = {"x": np.arange(10)}

    def transform(batch, rngs):
        return batch | {"drawn": np.array([rng.integers(99) for rng in rngs])}

    some = np.array([1, 3])
    whole = train_batches(data, batch_size=4, seed=3, transform=transform)
    part = train_batches(
        data, batch_size=4, seed=3, transform=transform, rows=lambda _: some
    )
    for _ in range(5):
        a, b = next(whole), next(part)
        assert {k: x[some].tolist() for k, x in a.items()} == {
            k: x.tolist() for k, x in b.items()
        }
    whole = list(eval_batches(data, batch_size=4))
    part = list(eval_batches(data, batch_size=4, rows=lambda _: some))
    assert [x["x"][some].tolist() for x in whole] == [x["x"].tolist() for x in part]
    assert [x["mask"][some].tolist() for x in whole] == [
        x["mask"].tolist() for x in part
    ]


@pytest.mark.parametrize("fill", [True, False])
def test_an_evaluation_has_every_example_once(fill):
    placement = placement_of("data=8")
    batches = list(placement.held_out({"x": np.arange(21)}, 10, fill))
    x = np.concatenate([np.asarray(b["x"])[np.asarray(b["mask"]) > 0] for b in batches])
    np.testing.assert_array_equal(x, np.arange(21))
    assert [len(b["x"]) for b in batches] == ([16, 16] if fill else [10, 10, 1])


def test_dimensions_are_divided_by_shape_alone():
    assert divided_dimensions((WORTH - 1,), 8, 1) == ()
    assert divided_dimensions((WORTH,), 8, 1) == ("data",)
    assert divided_dimensions((64, 128), 1, 1) == (None, None)
    assert divided_dimensions((64, 128), 4, 2) == ("data", "model")
    assert divided_dimensions((128, 67), 4, 2) == (None, "model")[::-1]
    assert divided_dimensions((3, 3, 64, 128), 4, 1) == (None, None, None, "data")
    assert divided_dimensions((67, 71), 4, 2) == (None, None)


@pytest.mark.parametrize(
    ("mesh", "shard", "message"),
    [
        ("rows=8", None, "mesh: expected auto, or sizes as data=4,model=2"),
        ("data=0", None, "mesh: expected auto"),
        ("data=2,data=4", None, "mesh: expected auto"),
        ("data", None, "mesh: expected auto"),
        ("data=16", None, "expected at most the 8 devices .*JAX_NUM_CPU_DEVICES"),
        (None, "params", "shard: expected a mesh"),
        ("auto", "rows", "shard: expected params, got rows"),
    ],
)
def test_a_placement_that_cannot_be(mesh, shard, message):
    with pytest.raises(ValueError, match=message):
        placement_of(mesh, shard)


def test_a_batch_that_does_not_divide_is_refused_before_anything(tmp_path):
    config = training.Config(batch_size=12, steps=2)
    with pytest.raises(ValueError, match="batch_size: expected a multiple of data=8"):
        training.train(own(2), config, tmp_path / "run", mesh="data=8")
    assert not (tmp_path / "run").exists()


def test_a_mesh_of_ones_own():
    devices = np.array(jax.devices()).reshape(4, 2)
    mesh = Mesh(devices, ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    found = placement_of(mesh).mesh
    assert found.axis_types == (AxisType.Auto,) * 2
    assert found.shape == {"data": 4, "model": 2}
    with pytest.raises(ValueError, match="mesh: expected the axes data and model"):
        placement_of(Mesh(devices, ("rows", "model")))
    assert placement_of("auto").mesh.shape == {"data": 8}
    assert placement_of(None) == Placement()
    whole = placement_of("model=2").mesh
    assert (dict(whole.shape), whole.size) == ({"data": 1, "model": 2}, 2)
    assert NamedSharding(whole, P()).num_devices == 2
