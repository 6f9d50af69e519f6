"""Tests for the records of a run: means of its steps, and who hears of them."""

import dataclasses
import importlib
import json
import struct
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from test_loop import Crash, Interrupt, assert_same_state

from mmpareto_jax.training import (
    Callback,
    Config,
    Start,
    WeightsAndBiases,
    conflict_share,
    draw_figures,
    read_metrics,
    train,
)
from mmpareto_jax.training._run.callbacks import Callbacks
from mmpareto_jax.training._run.fit import fit
from mmpareto_jax.training._run.tally import Tally

EVERY = 5  # of 7 steps, the fourth of which ends an epoch


def steps_of(workdir):
    return [r for r in read_metrics(workdir) if r["split"] == "train"]


@pytest.fixture(scope="module")
def meant(run, tmp_path_factory):
    """The run of the other tests, with means of several steps: of 4, 1 and 2."""
    config = dataclasses.replace(run.config, log_every=EVERY)
    return train(config, tmp_path_factory.mktemp("meant") / "run")


def test_a_tally_is_what_numpy_finds_in_all_steps():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 3)).astype(np.float32)
    values[rng.random((20, 3)) < 0.3] = np.nan
    values[4, 1] = np.inf
    conflicts = rng.random(20) < 0.4
    names = ("a/cosine", "a/magnitude", "loss/a")

    def metrics(k):
        return {"a/conflict": conflicts[k], **dict(zip(names, values[k], strict=True))}

    packing = Tally.of(metrics(0))
    add = jax.jit(packing.add)
    tally = packing.empty()
    for k in range(20):
        tally = add(tally, metrics(k))
    found = packing.record(np.asarray(tally), 20)
    finite = np.where(np.isfinite(values), values, np.nan)
    for k, name in enumerate(names):
        assert found[name] == pytest.approx(np.nanmean(finite[:, k]), rel=1e-5)
    assert found["a/cosine_min"] == np.nanmin(finite[:, 0])
    assert found["a/magnitude_max"] == np.nanmax(finite[:, 1])
    assert found["a/conflict"] == conflicts.sum() / 20
    assert found["steps"] == 20
    assert "a/conflict_count" not in found


@pytest.mark.parametrize(
    ("value", "kept"),
    [(0.1, np.float32(0.1)), (np.nan, None), (np.inf, None), (-3, -3), (True, True)],
)
def test_the_tally_of_one_step_is_the_step(value, kept):
    metrics = {"x": jnp.asarray(value)}
    packing = Tally.of(metrics)
    found = packing.record(np.asarray(packing.add(packing.empty(), metrics)), 1)
    missing = {"nonfinite/x": 1} if kept is None else {}
    assert found == {"x": kept, **missing}
    assert type(found["x"]) in (type(kept), float)
    json.dumps(found, allow_nan=False)


def test_a_record_says_how_many_steps_its_means_are_not_of():
    """And whose fault it was; what is finite throughout is not mentioned."""
    bad = np.array([False, True, True, False])

    def metrics(k):
        return {
            "loss/a": np.float32(np.nan if bad[k] else k),
            "loss/b": np.float32(k),
            "nonfinite": bad[k],
            "nonfinite/a": bad[k],
            "nonfinite/b": np.bool_(False),
            "a+b/nonfinite": bad[k],
            "ended": np.bool_(False),
        }

    packing = Tally.of(metrics(0))
    tally = packing.empty()
    for k in range(4):
        tally = packing.add(tally, metrics(k))
    # Not a step: the run had ended before it.
    tally = np.asarray(packing.add(tally, metrics(1), taken=False))
    assert packing.steps(tally) == 4
    assert not packing.ended(tally)
    assert packing.record(tally, 4) == {
        "steps": 4,
        "loss/a": 1.5,
        "loss/b": 1.5,
        "nonfinite": 2,
        "nonfinite/a": 2,
        "nonfinite/loss/a": 2,
        "a+b/nonfinite": 2,
    }


def test_a_tally_of_nothing_finite():
    metrics = {"a/conflict": jnp.nan, "a/cosine": jnp.nan}
    metrics = {k: jnp.asarray(x) for k, x in metrics.items()}
    packing = Tally.of(metrics)
    tally = packing.add(packing.add(packing.empty(), metrics), metrics)
    assert packing.record(np.asarray(tally), 2) == {
        "steps": 2,
        "a/conflict": None,
        "a/conflict_count": 0,
        "a/cosine": None,
    }


def test_records_are_the_means_of_the_steps(run, meant):
    """The training is bitwise the same, and so is the share of conflicts."""
    assert_same_state(meant.state, run.state)
    assert meant.scores == run.scores
    assert meant.conflicts == run.conflicts
    each, records = steps_of(run.workdir), steps_of(meant.workdir)
    assert [(r["step"], r.get("steps", 1)) for r in records] == [(4, 4), (5, 1), (7, 2)]
    assert records[1] == each[4]
    for record in (records[0], records[2]):
        own = each[record["step"] - record["steps"] : record["step"]]
        for name in set(own[0]) - {"step", "split"}:
            mean = np.mean([r[name] for r in own])
            assert record[name] == pytest.approx(mean, rel=1e-5, abs=1e-6)
        for group in ("joint+audio", "joint+visual"):
            cosines = [r[f"{group}/cosine"] for r in own]
            magnitudes = [r[f"{group}/magnitude"] for r in own]
            assert record[f"{group}/cosine_min"] == min(cosines)
            assert record[f"{group}/magnitude_max"] == max(magnitudes)
    others = [r for r in read_metrics(run.workdir) if r["split"] != "train"]
    assert [r for r in read_metrics(meant.workdir) if r["split"] != "train"] == others


def test_shares_of_conflicts_are_of_the_steps_that_found_weights(tmp_path):
    config = Config(
        train_examples=64, batch_size=16, steps=8, width=8, method="pcgrad", refresh=3
    )
    shares = {}
    for every in (1, 4):
        result = train(
            dataclasses.replace(config, log_every=every), tmp_path / f"{every}"
        )
        shares[every] = result.conflicts
        records = steps_of(result.workdir)
        counts = [r.get("joint+audio/conflict_count") for r in records]
        assert counts == ([None] * 8 if every == 1 else [2, 1])
    assert shares[1] == shares[4]
    assert set(shares[1]) == {"joint+audio", "joint+visual"}


def test_a_run_that_was_stopped_within_a_record_writes_the_same(meant, tmp_path):
    stopped = train(meant.config, tmp_path, callbacks=[Interrupt(3)])
    assert not stopped.finished
    # What there is of it is not lost, if the run is not taken up.
    assert [(r["step"], r["steps"]) for r in steps_of(tmp_path)] == [(3, 3)]
    resumed = train(meant.config, tmp_path, resume=True)
    assert_same_state(resumed.state, meant.state)
    assert resumed.conflicts == meant.conflicts
    text = (meant.workdir / "metrics.jsonl").read_text()
    assert (tmp_path / "metrics.jsonl").read_text() == text
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {p.name for p in meant.workdir.iterdir()}


def test_a_run_that_crashed_within_a_record_writes_the_same(meant, tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        train(meant.config, tmp_path, callbacks=[Crash(7)])
    train(meant.config, tmp_path, resume=True)
    text = (meant.workdir / "metrics.jsonl").read_text()
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_figures_of_means(meant, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        (meant.workdir / "metrics.jsonl").read_text()
    )
    assert [p.stem for p in draw_figures(tmp_path)] == [
        "learning_curves",
        "cosine",
        "weights",
        "gradient_norms",
    ]


def events(workdir):
    """Those of TensorBoard's one file: lengths and checksums around each."""
    (path,) = (workdir / "tensorboard").iterdir()
    content, at = path.read_bytes(), 0
    while at < len(content):
        (size,) = struct.unpack("<Q", content[at : at + 8])
        for part in (8, size):
            (checksum,) = struct.unpack("<I", content[at + part : at + part + 4])
            assert checksum == masked_crc32c(content[at : at + part])
            at += part + 4
        yield Event.FromString(content[at - 4 - size : at - 4])


def test_tensorboard_has_one_event_of_each_record(meant):
    version, start, *written = events(meant.workdir)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.HasField("session_log")) == (1, True)
    records = read_metrics(meant.workdir)
    assert [e.step for e in written] == [r["step"] for r in records]
    for event, record in zip(written, records, strict=True):
        tags = {v.tag: v.simple_value for v in event.summary.value}
        expected = {
            f"{record['split']}/{k.replace('+', '_')}": np.float32(x)
            for k, x in record.items()
            if k not in ("step", "split") and x is not None
        }
        assert tags == expected


class Heard(Callback):
    """All that a callback is told."""

    def __init__(self):
        self.calls = []

    def __getattribute__(self, name):
        if not name.startswith("on_") and name != "close":
            return object.__getattribute__(self, name)
        return lambda *told: self.calls.append((name, *told))


def test_what_a_callback_hears(meant, tmp_path):
    heard = Heard()
    config = dataclasses.replace(meant.config, probe_every=6)
    result = train(config, tmp_path, callbacks=[heard])
    order = [
        (name, told[0] if told and isinstance(told[0], int) else None)
        for name, *told in heard.calls
    ]
    assert order == [
        ("on_start", None),
        *(("on_tick", step) for step in (1, 2, 3, 4)),
        ("on_step", 4),
        ("on_epoch", 4),
        ("on_save", 4),
        ("on_tick", 5),
        # One step late, unless the epoch ends.
        ("on_step", 5),
        ("on_probe", 6),
        ("on_tick", 6),
        ("on_tick", 7),
        ("on_step", 7),
        ("on_epoch", 7),
        ("on_save", 7),
        ("on_end", None),
        ("close", None),
    ]
    told = {name: x for name, *x in heard.calls}
    records = steps_of(tmp_path)
    assert told["on_step"][1] == {
        k: x for k, x in records[-1].items() if k not in ("step", "split")
    }
    assert told["on_end"] == [result]
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(told["on_probe"][1]))


def test_an_exception_in_a_callback_ends_the_run_with_all_closed(run, tmp_path):
    heard = Heard()
    with pytest.raises(RuntimeError, match="power cut"):
        train(run.config, tmp_path, callbacks=[Crash(2), heard])
    names = [name for name, *_ in heard.calls]
    assert names[-1] == "close"
    assert names.count("on_step") == 1
    assert [r["step"] for r in steps_of(tmp_path)] == [1, 2]


def test_all_are_closed_when_one_fails_to():
    class Stuck(Callback):
        def close(self):
            raise OSError("disk full")

    first, last = Heard(), Heard()
    with pytest.raises(OSError, match="disk full"):
        Callbacks([first, Stuck(), last]).close()
    assert first.calls == last.calls == [("close",)]


class Fetched:
    """An array of a device that tells when it is fetched."""

    def __init__(self, step, log, packing):
        self.step, self.log, self.packing = step, log, packing

    def __array__(self, dtype=None, copy=None):
        self.log.append(("fetch", self.step))
        tally = self.packing.empty()
        tally[1] = 2  # steps
        return tally


def test_the_loop_fetches_once_a_record_and_one_step_late(monkeypatch):
    log, packing = [], Tally(("nonfinite", "ended"), frozenset(), np.float32)
    monkeypatch.setattr(jax, "device_get", np.asarray)

    def logged(state, tally, batch):
        step = state.step + 1
        log.append(("step", int(step)))
        return types.SimpleNamespace(step=step), Fetched(int(step), log, packing)

    program = types.SimpleNamespace(
        tally=lambda state, batch: packing,
        logged=logged,
        between_epochs=None,
        evaluate=lambda state, source: {},
    )
    config = Config(train_examples=64, batch_size=16, steps=6, epochs=1, log_every=2)
    data = {"train": {"x": np.arange(96)}, "validation": {}}
    task = types.SimpleNamespace(data=data, transform=None)
    config = dataclasses.replace(config, train_examples=96)
    fit(
        program,
        config,
        task,
        types.SimpleNamespace(step=np.int32(0)),
        on_step=lambda step, record: log.append(("record", step)),
        on_pause=lambda state, scores: None,
    )
    assert log == [
        ("step", 1),
        ("step", 2),
        ("step", 3),
        ("fetch", 2),
        ("record", 2),
        ("step", 4),
        ("step", 5),
        ("fetch", 4),
        ("record", 4),
        ("step", 6),
        ("fetch", 6),
        ("record", 6),
    ]


class FakeRun:
    def __init__(self, options):
        self.options, self.logs, self.summary = options, [], {}
        self.id, self.code = options.get("id", "abc"), None

    def log(self, values, step):
        self.logs.append((step, values))

    def finish(self, exit_code):
        self.code = exit_code


@pytest.fixture
def wandb(monkeypatch):
    """The module, as far as it is used; its runs."""
    runs = []

    def init(**options):
        runs.append(FakeRun(options))
        return runs[-1]

    module = types.ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_weights_and_biases(run, wandb, tmp_path):
    start = Start(run.config, None, run.groups, tmp_path, 0)
    first = WeightsAndBiases("papers", tags=["a"])
    first.on_start(start)
    first.on_step(3, {"loss/joint": 0.5, "joint+audio/cosine": None})
    first.on_epoch(3, {"loss/joint": 0.75})
    first.close()
    second = WeightsAndBiases("papers")
    second.on_start(start._replace(step=3))
    second.on_end(run)
    second.close()
    began, went_on = wandb
    assert began.options == {
        "project": "papers",
        "tags": ["a"],
        "dir": str(tmp_path),
        "name": tmp_path.name,
        "config": run.config.to_dict(),
    }
    assert began.logs == [
        (3, {"train/loss/joint": 0.5}),
        (3, {"validation/loss/joint": 0.75}),
    ]
    assert (went_on.options["id"], went_on.options["resume"]) == ("abc", "allow")
    assert went_on.summary == {f"test/{k}": x for k, x in run.scores["test"].items()}
    # The first one has ended without a result.
    assert (began.code, went_on.code) == (1, 0)


@pytest.mark.parametrize("content", [b"", b"a/b\n", b"\0\0\0", b"\xff"])
def test_a_damaged_id_of_weights_and_biases_begins_a_run_there(
    content, run, wandb, tmp_path
):
    (tmp_path / "wandb-id").write_bytes(content)
    callback = WeightsAndBiases("papers")
    with pytest.warns(UserWarning, match="wandb-id: the run goes on there as a new"):
        callback.on_start(Start(run.config, None, run.groups, tmp_path, 3))
    assert "id" not in wandb[0].options
    assert (tmp_path / "wandb-id").read_text() == "abc"
    callback.close()


def test_weights_and_biases_is_asked_for_when_it_is_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError):
        WeightsAndBiases("papers")


def test_the_share_of_conflicts_of_unlike_records():
    records = [
        {"a/conflict": 0.1, "steps": 10},
        {"a/conflict": 1.0, "steps": 10, "a/conflict_count": 3},
        {"a/conflict": None, "steps": 10, "a/conflict_count": 0},
        {"a/conflict": False},
    ]
    assert conflict_share(records, "a") == 4 / 14
    assert conflict_share(records, "b") is None


def test_the_loop_does_not_wait_for_the_disk(run, tmp_path, monkeypatch):
    """A checkpoint is not written before the next epoch's first step is under way."""
    saving = importlib.import_module(
        "orbax.checkpoint._src.checkpointers.async_checkpointer"
    )
    write = saving._background_wait_for_commit_futures
    taken, in_time = threading.Event(), []

    def late(*args, **kwargs):
        in_time.append(taken.wait(timeout=120))
        return write(*args, **kwargs)

    monkeypatch.setattr(saving, "_background_wait_for_commit_futures", late)

    class Taken(Callback):
        def on_tick(self, step):
            if step == 5:  # the fourth ends an epoch
                taken.set()

    result = train(run.config, tmp_path, callbacks=[Taken()])
    assert in_time == [True, True]
    assert_same_state(result.state, run.state)
