"""What is damaged in a run's directory: nothing else is lost, and it is said."""

import dataclasses
import json
import shutil
import signal
import warnings

import jax
import numpy as np
import pytest
from flax import nnx
from small_tasks import lines

from mmpareto_jax import training
from mmpareto_jax.training._run.damaged import RunWarning

# Four steps to an epoch.
CONFIG = training.Config(batch_size=16, epochs=4, lr=0.01, method="uniform")


class Crash(training.Callback):
    """Ends the process, nearly."""

    def __init__(self, step):
        self.step = step

    def on_tick(self, step):
        if step == self.step:
            raise RuntimeError("power cut")


class Interrupt(training.Callback):
    """As Ctrl-C would."""

    def __init__(self, step):
        self.step = step

    def on_tick(self, step):
        if step == self.step:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return training.train(lines(), CONFIG, tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A run that got to step 14, with checkpoints 8 and 12."""
    workdir = tmp_path_factory.mktemp("runs") / "crashed"
    with pytest.raises(RuntimeError, match="power cut"):
        training.train(lines(), CONFIG, workdir, callbacks=[Crash(14)])
    assert steps_in(workdir) == [8, 12]
    return workdir


@pytest.fixture
def workdir(crashed, tmp_path):
    return shutil.copytree(crashed, tmp_path / "run")


def steps_in(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


def files(directory):
    return {
        p.relative_to(directory): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file()
    }


def resumed(workdir, config=CONFIG, **more):
    """The result, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = training.train(lines(), config, workdir, resume=True, **more)
    assert [x.category for x in said] == [RunWarning] * len(said)
    assert all("\n" not in str(x.message) for x in said)
    return result, [str(x.message) for x in said]


def assert_as_whole(result, whole):
    for x, y in zip(
        jax.tree.leaves(result.state), jax.tree.leaves(whole.state), strict=True
    ):
        np.testing.assert_array_equal(x, y)
    assert result.scores == whole.scores
    assert training.read_metrics(result.workdir) == (
        training.read_metrics(whole.workdir)
    )


def largest(folder):
    return max(
        (p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )


def flip(folder):
    path = largest(folder / "default")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(folder):
    path = largest(folder / "default")
    path.write_bytes(path.read_bytes()[:-1])


def empty_file(folder):
    largest(folder / "default").write_bytes(b"")


def missing_file(folder):
    largest(folder / "default").unlink()


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def score(content):
    def change(folder):
        (folder / "metrics" / "metrics").write_bytes(content)

    return change


def no_score(folder):
    shutil.rmtree(folder / "metrics")


def no_arrays(folder):
    shutil.rmtree(folder / "default")


def checksums(content):
    def change(folder):
        (folder / "checksums.json").write_bytes(content)

    return change


DAMAGES = {
    "a flipped bit": (flip, "has another checksum than when it was written"),
    "a file cut off": (truncate, "bytes, not "),
    "an empty file": (empty_file, "has 0 bytes, not "),
    "no file": (missing_file, " is missing"),
    "an empty folder": (empty, "it is empty"),
    "no arrays": (no_arrays, "default is missing"),
    "no score": (no_score, "metrics is missing"),
    "an empty score": (score(b""), "its score cannot be read: "),
    "a score that is none": (score(b'{"score": []}'), "its score cannot be read: "),
    "a score of bytes": (score(b"\xff\x00"), "its score cannot be read: "),
    "another score": (score(b'{"score": 9.0}'), "metrics/metrics has "),
    "no checksums": (checksums(b"\0\0"), "checksums.json cannot be read: "),
    "other checksums": (checksums(b'{"a": 1}'), "checksums.json cannot be read: "),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_moved_and_the_one_before_is_taken(
    kind, workdir, whole
):
    damage, wrong = DAMAGES[kind]
    damage(workdir / "checkpoints" / "12")
    before = files(workdir / "checkpoints" / "12")
    result, (said,) = resumed(workdir)
    assert said.startswith(f"workdir {workdir}: checkpoint 12 is damaged: ")
    assert wrong in said
    aside = workdir / "damaged" / "12"
    assert said.endswith(f"it was moved to {aside}, and the run goes on from step 8")
    assert files(aside) == before
    assert_as_whole(result, whole)
    assert steps_in(workdir)[-2:] == [12, 16]


@pytest.mark.parametrize("kind", DAMAGES)
def test_without_a_sound_checkpoint_nothing_is_changed(kind, workdir):
    (workdir / "result.json").write_text("{}")
    damage, wrong = DAMAGES[kind]
    for step in (8, 12):
        damage(workdir / "checkpoints" / str(step))
    before = files(workdir)
    with pytest.raises(ValueError, match="every checkpoint is damaged") as refused:
        training.train(lines(), CONFIG, workdir, resume=True)
    message = str(refused.value)
    assert "\n" not in message
    assert message.count(wrong) == 2
    assert "or start anew in another --workdir" in message
    assert files(workdir) == before


def refusal(workdir, which):
    """Its beginning, what is wrong, and the way out."""
    with pytest.raises(ValueError, match="damaged") as refused:
        training.evaluate(workdir, which, task=lines())
    message = str(refused.value)
    assert "\n" not in message
    start, _, rest = message.partition(" is damaged: ")
    wrong, _, way_out = rest.rpartition("; ")
    return start, wrong, way_out


@pytest.mark.parametrize("kind", DAMAGES)
def test_evaluation_names_what_is_damaged_and_changes_nothing(kind, workdir):
    damage, wrong = DAMAGES[kind]
    assert training.evaluate(workdir, task=lines()).step == 12
    damage(workdir / "checkpoints" / "12")
    before = files(workdir)
    for which in ("best", "latest"):
        named, found, way_out = refusal(workdir, which)
        assert named == f"checkpoint {workdir / 'checkpoints' / '12'}"
        assert wrong in found
        assert way_out == "train --resume goes on from checkpoint 8"
    assert files(workdir) == before
    damage(workdir / "checkpoints" / "8")
    assert refusal(workdir, "latest")[2] == "no other is sound: put a copy of one back"


def test_the_latest_is_offered_where_the_best_is_damaged(workdir):
    (workdir / "checkpoints" / "12").rename(workdir / "checkpoints" / "2")
    flip(workdir / "checkpoints" / "2")
    assert refusal(workdir, "best")[2] == "--checkpoint latest reads checkpoint 8"
    assert training.evaluate(workdir, "latest", task=lines()).step == 8


def test_a_checkpoint_without_checksums_is_read(workdir, whole):
    """Of a version that wrote none."""
    for step in (8, 12):
        (workdir / "checkpoints" / str(step) / "checksums.json").unlink()
    result, said = resumed(workdir)
    assert said == []
    assert_as_whole(result, whole)


def test_a_checkpoint_that_orbax_cannot_read_is_named(workdir):
    folder = workdir / "checkpoints" / "12"
    (folder / "checksums.json").unlink()
    (folder / "default" / "_METADATA").write_bytes(b"{")
    before = files(workdir)
    with pytest.raises(ValueError, match="12 cannot be read: ") as refused:
        training.train(lines(), CONFIG, workdir, resume=True)
    assert "\n" not in str(refused.value)
    assert "move that folder away" in str(refused.value)
    assert files(workdir) == before


@pytest.mark.parametrize("whole_folder", [True, False])
def test_lost_checkpoints_do_not_cost_the_metrics(whole_folder, workdir):
    for step in (8, 12):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    if whole_folder:
        shutil.rmtree(workdir / "checkpoints")
    before = files(workdir)
    with pytest.raises(ValueError, match="its checkpoints are gone; put one back"):
        training.train(lines(), CONFIG, workdir, resume=True)
    assert files(workdir) == before


def test_a_run_without_a_checkpoint_yet_begins_again(tmp_path, whole):
    with pytest.raises(RuntimeError, match="power cut"):
        training.train(lines(), CONFIG, tmp_path, callbacks=[Crash(3)])
    result, said = resumed(tmp_path)
    assert said == []
    assert_as_whole(result, whole)


def test_what_a_killed_save_has_left_goes(workdir, whole):
    half = workdir / "checkpoints" / "16.orbax-checkpoint-tmp"
    shutil.copytree(workdir / "checkpoints" / "12", half)
    other = workdir / "checkpoints" / "13.orbax-checkpoint-tmp"
    shutil.copytree(half, other)
    result, said = resumed(workdir)
    assert said == []
    assert_as_whole(result, whole)
    assert not half.exists()
    assert not other.exists()


def cut_off(text):
    return text + '{"step": 15, "spl'


def flipped(text):
    return text.replace('"step": 2', '"step" 2', 1)


def blank(text):
    return text.replace("\n", "\n\n", 2)


def nul(text):
    return text.replace("\n", "\n\0\0\0\0\n", 1)


def bom(text):
    return "\ufeff" + text


def carriage_returns(text):
    return text.replace("\n", "\r\n")


def no_record(text):
    return '[1]\n{}\n{"step": "a", "split": "train"}\n7\n' + text


def out_of_order(text):
    return "".join(reversed(text.splitlines(keepends=True)))


def deep(text):
    return "[" * 100_000 + "\n" + text


def after(text):
    late = text.splitlines(keepends=True)[0].replace('"step": 1', '"step": 15')
    return late + text


MOVED = {cut_off: 0, blank: 0, nul: 1, bom: 0, carriage_returns: 0, deep: 1, after: 0}


@pytest.mark.parametrize("change", [*MOVED, no_record])
def test_good_lines_of_the_metrics_stay(change, workdir, whole):
    path = workdir / "metrics.jsonl"
    path.write_bytes(change(path.read_text()).encode())
    result, said = resumed(workdir)
    moved = MOVED.get(change, 4)
    aside = workdir / "damaged" / "metrics.jsonl"
    if moved:
        lines = "line that holds" if moved == 1 else "lines that hold"
        assert said == [
            f"workdir {workdir}: moved {moved} {lines} no record to {aside}"
        ]
        assert len(aside.read_bytes().splitlines()) == moved
    else:
        assert said == []
        assert not aside.exists()
    assert_as_whole(result, whole)


def test_a_damaged_line_is_moved_as_it_is(workdir, whole):
    path = workdir / "metrics.jsonl"
    good = path.read_text()
    path.write_text(flipped(good))
    _, said = resumed(workdir)
    assert len(said) == 1
    (line,) = (workdir / "damaged" / "metrics.jsonl").read_text().splitlines()
    assert line == good.splitlines()[1].replace('"step": 2', '"step" 2')
    expected = training.read_metrics(whole.workdir)
    assert training.read_metrics(workdir) == [*expected[:1], *expected[2:]]


def test_records_out_of_order_stay_so(workdir, whole):
    path = workdir / "metrics.jsonl"
    path.write_text(out_of_order(path.read_text()))
    _, said = resumed(workdir)
    assert said == []

    def key(record):
        return record["step"], record["split"]

    found = sorted(training.read_metrics(workdir), key=key)
    assert found == sorted(training.read_metrics(whole.workdir), key=key)


def test_missing_records_are_said(workdir):
    path = workdir / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    _, said = resumed(workdir)
    assert said == [
        f"workdir {workdir}: metrics.jsonl has no record of steps 5 to 12, where the "
        "run goes on"
    ]


def test_metrics_that_need_no_change_are_not_rewritten(workdir):
    resumed(workdir)
    path = workdir / "metrics.jsonl"
    before = path.stat().st_ino, path.stat().st_mtime_ns
    resumed(workdir)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before


def test_reading_leaves_out_what_is_no_record(tmp_path):
    good = '{"step": 1, "split": "train"}\n'
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f"\ufeff{good}\0\0\n[1]\r\n\n{good}{good[:9]}".encode())
    with pytest.warns(RunWarning, match="left out 2 lines that hold no record"):
        found = training.read_metrics(tmp_path)
    assert found == [{"step": 1, "split": "train"}] * 2
    path.write_text(good + good[:9])  # of a killed run, or one that is writing
    assert training.read_metrics(tmp_path) == found[:1]


def test_a_damaged_rest_of_a_record_is_gone_without(tmp_path):
    """The record that was cut off there stays one of fewer steps."""
    config = dataclasses.replace(CONFIG, log_every=4)
    stopped = training.train(lines(), config, tmp_path, callbacks=[Interrupt(6)])
    assert not stopped.finished
    path = tmp_path / "unfinished_record.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    _, (said,) = resumed(tmp_path, config)
    aside = tmp_path / "damaged" / path.name
    assert f"unreadable {path.name}, moved to {aside}: " in said
    assert aside.read_bytes() == bytes(content)
    found = [
        (r["step"], r["steps"])
        for r in training.read_metrics(tmp_path)
        if r["split"] == "train"
    ]
    assert found == [(4, 4), (6, 2), (8, 2), (12, 4), (16, 4)]


def test_a_finished_run_stays_as_it_is(workdir):
    resumed(workdir)
    before = files(workdir)
    resumed(workdir)
    after = files(workdir)
    names = {str(p) for p in after if before.get(p) != after[p]}
    assert {x for x in names if not x.startswith("tensorboard")} == {"config.json"}
    assert set(before) <= set(after)


def test_a_refusal_leaves_result_and_metrics(workdir):
    """As of another model, which the restored parameters do not fit."""
    (workdir / "result.json").write_text("{}")
    flip(workdir / "checkpoints" / "12")
    before = files(workdir)
    other = dataclasses.replace(CONFIG, lr=0.02)
    with pytest.raises(ValueError, match="another config"):
        training.train(lines(), other, workdir, resume=True)
    own = lines()
    wider = training.task(
        lambda rngs: nnx.Linear(2, 3, rngs=rngs),
        {
            "left": lambda y, batch: (y[:, 0] - batch["left"]) ** 2,
            "right": lambda y, batch: (y[:, 1] - batch["right"]) ** 2,
        },
        own.data,
        {"error": training.lower_is_better(lambda y, b: abs(y[:, 0] - b["left"]))},
        name="lines",
        forward=lambda model, batch: model(batch["x"]),
    )
    with pytest.raises(ValueError, match="checkpoint 8: has other parameters"):
        training.train(wider, CONFIG, workdir, resume=True)
    assert files(workdir) == before


def test_a_run_that_lost_its_config_is_not_written_over(workdir):
    (workdir / "config.json").unlink()
    before = files(workdir)
    with pytest.raises(ValueError, match=r"config\.json; choose another"):
        training.train(lines(), CONFIG, workdir)
    with pytest.raises(ValueError, match="holds no run"):
        training.train(lines(), CONFIG, workdir, resume=True)
    assert files(workdir) == before


def test_each_beginning_is_told(workdir):
    resumed(workdir)
    record = json.loads((workdir / "config.json").read_text())
    (again,) = record["resumed"]
    expected = {"versions", "argv", "environment", "jax", "git", "started", "device"}
    assert expected <= set(again)
    assert again["versions"] == record["versions"]


def test_the_same_again_is_bitwise_the_same(whole, tmp_path):
    again = training.train(lines(), CONFIG, tmp_path)
    assert_as_whole(again, whole)
    text = (whole.workdir / "metrics.jsonl").read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == text


def test_the_latest_two_checkpoints_and_the_best_are_kept(whole):
    assert steps_in(whole.workdir)[-2:] == [12, 16]
    assert len(steps_in(whole.workdir)) <= 3
