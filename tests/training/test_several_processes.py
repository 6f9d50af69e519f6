"""One run of several real processes, over the loopback, by the command line."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import mmpareto_jax
from mmpareto_jax import training
from mmpareto_jax._cli.devices import Devices
from mmpareto_jax._cli.member import LOST, is_child

ROOT = pathlib.Path(mmpareto_jax.__file__).parents[1]
# Four steps to an epoch.
SMALL = ("--train-examples", "64", "--batch-size", "16", "--width", "32")
RESTART = "again with --resume, or without where there is no checkpoint yet"


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory, quick_processes):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick_processes.items():
            patch.setenv(name, value)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            cache = tmp_path_factory.mktemp("compiled")
            patch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
        yield


def command(workdir, *more):
    return [
        *(sys.executable, "-m", "mmpareto_jax", "train", *SMALL),
        *("--device", "cpu", "--mesh", "data=4", "--workdir", str(workdir), *more),
    ]


@contextlib.contextmanager
def started(number, workdir, *more, last=()):
    """The processes; none of them is left behind. `last`: of the last one alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", str(number))
    processes = [
        subprocess.Popen(
            [
                *command(workdir, *more, *(last if own == number - 1 else ())),
                *(*meeting, "--process-id", str(own)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for own in range(number)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            with process:  # closes what it wrote to, and waits
                pass


def ended(processes, timeout=300):
    """Of each: exit code, standard output and standard error."""
    said = [process.communicate(timeout=timeout) for process in processes]
    return [(p.returncode, *x) for p, x in zip(processes, said, strict=True)]


def run(number, workdir, *more):
    with started(number, workdir, *more) as processes:
        found = ended(processes)
    assert [code for code, _, _ in found] == [0] * number, found
    return found


def after(workdir):
    """The numbers of the last checkpoint."""
    state = training.evaluate(workdir, "latest").state
    leaves = jax.tree.leaves((state.step, state.params, state.opt_state))
    return [np.asarray(x) for x in leaves]


def assert_close(found, expected):
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def assert_same(found, expected):
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)


def wait_for(path, processes):
    for _ in range(6000):
        if path.exists():
            return
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.05)
    pytest.fail(f"{path} did not appear")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What one process makes of the same mesh."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    subprocess.run(command(workdir, "--steps", "6"), check=True, cwd=ROOT)
    return workdir


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two") / "run"
    return workdir, run(2, workdir, "--steps", "6")


def test_two_processes_are_one(one, two):
    workdir, _ = two
    assert_close(after(workdir), after(one))
    records = zip(
        training.read_metrics(workdir), training.read_metrics(one), strict=True
    )
    for a, b in records:
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


def test_one_of_them_writes_and_speaks(one, two):
    workdir, ((_, out, errors), (_, silent, also_silent)) = two
    assert (silent, also_silent) == ("", "")
    assert "checkpoint: step" in out
    assert "Gloo" not in out + errors
    names = sorted(p.relative_to(one) for p in one.rglob("*.*"))
    told = [
        p for p in names if "checkpoints" not in p.parts and "tfevents" not in str(p)
    ]
    assert all((workdir / name).exists() for name in told)
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    record = json.loads((workdir / "config.json").read_text())
    assert (record["mesh"], record["processes"]) == ({"data": 4}, 2)
    assert record["device"] == "4 × cpu"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [((), "already holds a run"), (("--batch-size", "10"), "a multiple of data=4")],
)
def test_a_refusal_is_one_sentence_and_ends_all(two, tmp_path, more, sentence):
    workdir = tmp_path / "other" if more else two[0]
    with started(2, workdir, "--steps", "6", *more) as processes:
        found = ended(processes)
    assert [code for code, _, _ in found] == [2, 2]
    lines = [line for _, out, errors in found for line in (out + errors).splitlines()]
    assert len(lines) == 1
    assert lines[0].startswith("mmpareto: ")
    assert sentence in lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_dies_and_the_run_goes_on(victim, tmp_path):
    long = ("--steps", "60")
    run(2, tmp_path / "whole", *long)
    workdir = tmp_path / "died"
    with started(2, workdir, *long) as processes:
        wait_for(workdir / "checkpoints" / "4", processes)
        processes[victim].send_signal(signal.SIGKILL)
        begun = time.monotonic()
        (code, _, errors) = ended([processes[1 - victim]], timeout=60)[0]
        assert time.monotonic() - begun < 60
    assert code == LOST
    sentences = [x for x in errors.splitlines() if "epoch" not in x]
    assert len(sentences) == 1
    assert sentences[0].endswith(RESTART)
    reached = {
        int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal()
    }
    assert max(reached) < 60
    run(2, workdir, *long, "--resume")
    assert_same(after(workdir), after(tmp_path / "whole"))


@pytest.mark.slow
def test_a_process_that_is_silent_counts_as_dead(tmp_path):
    """Frozen, as a host that hangs: nothing closes its connections."""
    with started(2, tmp_path / "run", "--steps", "4000") as processes:
        wait_for(tmp_path / "run" / "checkpoints" / "4", processes)
        children = pathlib.Path(f"/proc/{processes[1].pid}/task/{processes[1].pid}")
        (child,) = (int(x) for x in (children / "children").read_text().split())
        os.kill(child, signal.SIGSTOP)
        try:
            code, _, errors = ended([processes[0]], timeout=60)[0]
        finally:
            os.kill(child, signal.SIGKILL)
    assert code == LOST
    assert errors.splitlines()[-1].endswith(RESTART)


@pytest.mark.slow
def test_all_stop_after_the_same_step_and_go_on_as_more(tmp_path):
    """A signal to one of two; then four processes; then one device."""
    long, workdir = ("--steps", "40"), tmp_path / "run"
    run(2, tmp_path / "whole", *long)
    with started(2, workdir, *long) as processes:
        wait_for(workdir / "metrics.jsonl", processes)
        processes[1].send_signal(signal.SIGTERM)
        found = ended(processes)
    assert [code for code, _, _ in found] == [130, 130], found
    assert "Stopped. To go on" in found[0][1]
    assert not json.loads((workdir / "result.json").read_text())["finished"]
    run(4, workdir, *long, "--resume")
    assert_close(after(workdir), after(tmp_path / "whole"))
    record = json.loads((workdir / "config.json").read_text())
    assert [x["processes"] for x in (record, *record["resumed"])] == [2, 4]
    steps = [x["step"] for x in training.read_metrics(workdir) if x["split"] == "train"]
    assert steps == list(range(1, 41))


@pytest.mark.slow
def test_two_processes_with_divided_parameters(one, tmp_path):
    """What none of them has whole is saved whole, and read by a single device."""
    workdir = tmp_path / "run"
    run(2, workdir, "--steps", "6", "--mesh", "data=2,model=2", "--shard", "params")
    assert_close(after(workdir), after(one))


@pytest.mark.slow
def test_slurm_is_found(one, tmp_path):
    """By its variables, with which ``srun`` starts every process."""
    workdir = tmp_path / "run"
    given = ("--device", "cpu", "--distributed", "auto", "--workdir", str(workdir))
    call = (sys.executable, "-m", "mmpareto_jax", "train", *SMALL, "--steps", "6")
    job = {
        "SLURM_JOB_ID": str(os.getpid()),  # which makes the port
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "JAX_NUM_CPU_DEVICES": "2",
    }
    tasks = [
        subprocess.Popen(
            [*call, *given],
            env=os.environ | job | {"SLURM_PROCID": x, "SLURM_LOCALID": x},
            cwd=ROOT,
        )
        for x in "01"
    ]
    assert [task.wait(timeout=300) for task in tasks] == [0, 0]
    assert_close(after(workdir), after(one))


def test_flags_that_belong_together():
    def taken(**given):
        return Devices.taken_from(dict(given))

    with pytest.raises(ValueError, match="--coordinator needs --num-processes and"):
        taken(coordinator="a:1")
    with pytest.raises(ValueError, match="--num-processes needs --coordinator, too"):
        taken(process_id=0, num_processes=2)
    with pytest.raises(ValueError, match="--process-id: expected 0 to 1, got 2"):
        taken(coordinator="a:1", num_processes=2, process_id=2)
    with pytest.raises(ValueError, match="auto finds the --coordinator itself"):
        taken(coordinator="a:1", num_processes=2, process_id=1, distributed="auto")
    arguments = {"mesh": "data=8", "lr": 0.1}
    assert Devices.taken_from(arguments) == Devices(mesh="data=8")
    assert arguments == {"lr": 0.1}
    assert not is_child()


@pytest.mark.parametrize(
    ("last", "what"), [(("--batch-size", "8"), "batch_size"), (("--resume",), "resume")]
)
def test_other_options_on_one_process_are_refused_on_all(last, what, tmp_path):
    """Before any of them waits for the other, or writes."""
    more = ("--steps", "4")
    if what == "resume":
        run(2, tmp_path / "run", *more)
    before = sorted(tmp_path.rglob("*"))
    with started(2, tmp_path / "run", *more, last=last) as processes:
        found = ended(processes, timeout=120)
    assert [code for code, _, _ in found] == [2, 2]
    sentence = f"{what}: expected the same on all processes"
    assert [err.count(sentence) for _, _, err in found] == [1, 0]
    assert sorted(tmp_path.rglob("*")) == before
