"""Wrong calls of every command: one line that names the thing, exit code 2, no trace.

None of them compiles anything. What prepared data may not be is in tests/data/.
"""

import os
import re
import shlex
import sys

import jax
import pytest

from mmpareto_jax import cli

# What is to come stands on standard error before it begins.
ANNOUNCED = re.compile(
    r"\d+ runs: \d+ to tune, \d+ that count|\d+ settings?, \d+ runs of two|\d+ examples"
)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Calls the command in an empty directory; returns the line that it says."""
    # A user's module of one test is not that of another one.
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def called(*arguments, code=2):
        before = tree(tmp_path)
        assert cli.main(arguments) == code
        out, err = capsys.readouterr()
        lines = [x for x in err.splitlines() if not ANNOUNCED.match(x)]
        assert (out, len(lines)) == ("", 1), err
        assert tree(tmp_path) == before
        return lines[0]

    return called


def tree(directory):
    """The files, with what is in them."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
        if "__pycache__" not in path.parts
    }


LINES = {
    # No command, or none that there is.
    "": "arguments are required: COMMAND",
    "''": "unknown command ''; expected one of train, ",
    "-": "unknown command -; expected one of train, ",
    "--": "arguments are required: COMMAND",
    "-x": "unknown option -x; expected one of -h, ",
    "--version=3": "--version: ignored explicit argument '3'",
    "--debug": "arguments are required: COMMAND",
    # Words
    "train ''": "unknown task ''; expected one of av-digits",
    "train a b": "unknown task a; expected one of",
    "train av-digits b": "unrecognized arguments: b",
    "train --help=3": "ignored explicit argument '3'",
    "evaluate": "arguments are required: workdir",
    "evaluate r s": "unrecognized arguments: s",
    "evaluate r --checkpoint 5": "unknown checkpoint 5; expected one of best, latest",
    "plot": "arguments are required: workdir",
    "report": "arguments are required: WORKDIR",
    "check": "arguments are required: directory",
    "methods a b": "unknown method a",
    "methods ''": "unknown method ''; mmpareto methods lists them",
    "datasets ''": "unknown data set ''",
    "completion": "arguments are required: shell",
    "completion bash zsh": "unrecognized arguments: zsh",
    "prepare": "arguments are required: NAME, --out",
    "prepare arrays": "arguments are required: --out",
    "prepare arrays --out o": "raw: arrays needs the .npz file, or the directory",
    "prepare arrays --raw n --out o": "expected an npz file or a directory of npy",
    "prepare arrays --raw . --out o": "has no arrays",
    "prepare arrays --raw . --out o --size 3": "--size: arrays has no such option",
    "prepare arrays --raw . --out o --shares 1": "shares: expected three above 0",
    "prepare arrays --raw . --out o --shares a": "invalid list of float value: 'a'",
    "prepare arrays --raw . --out o --workers 0": "--workers: expected 1 to ",
    "prepare arrays --raw . --out o --workers 1e9": "invalid int value: '1e9'",
    "prepare arrays --raw . --out o --workers 1000000000": "--workers: expected 1 to ",
    # Numbers of a run
    "train --lr nan": "lr: expected a finite number > 0 that float32 holds, got nan",
    "train --lr inf": "lr: expected a finite number > 0 that float32 holds, got inf",
    "train --lr 1e300": "lr: expected a finite number > 0 that float32 holds, got 1e+3",
    "train --lr 1e-300": "lr: expected a finite number > 0 that float32 holds, got 1e-",
    "train --lr 0": "lr: expected a finite number > 0",
    "train --weight-decay=-1": "weight_decay: expected a finite number >= 0",
    "train --weight-decay 1e99": "weight_decay: expected a finite number >= 0",
    "train --momentum nan": "momentum: expected 0 <= momentum < 1, got nan",
    "train --gamma inf": "gamma: expected a finite number >= 0",
    "train --max-magnitude inf": "max_magnitude: expected a finite number >= 1",
    "train --smooth 1": "smooth: expected 0 <= decay < 1, got 1.0",
    "train --refresh 0": "refresh: expected 1 to 2**31 - 1, got 0",
    "train --seed -1": "seed: expected 0 to 2**31 - 1, got -1",
    "train --seed 1.5": "--seed: invalid int value: '1.5'",
    f"train --seed {2**70}": "seed: expected 0 to 2**31 - 1, got 118059162071741130342",
    "train --epochs 0": "epochs: expected 1 to 2**31 - 1, got 0",
    f"train --epochs {10**18}": "epochs: expected 1 to 2**31 - 1, got 1000000000000",
    f"train --epochs {10**9}": "epochs: expected at most 2147483647 steps in all",
    f"train --steps {10**30}": "steps: expected 1 to 2**31 - 1, got 1000000000000",
    f"train --log-every {10**30}": "log_every: expected 1 to 2**31 - 1, got 10000000",
    "train --probe-every 1000000000": "probe_every: expected at most 465 steps",
    f"train --batch-size {10**9}": "batch_size: expected at most the 1000 training ex",
    "train --train-examples 1": "batch_size: expected at most the 1 training examples",
    "train --width 4e12": "--width: invalid int value: '4e12'",
    f"train --width {4 * 10**12}": "width: expected a multiple of 4, up to 8192",
    "train --width 6": "width: expected a multiple of 4, up to 8192, got 6",
    f"train --train-examples {10**12}": "train_examples: expected 1 to 2**31 - 1",
    f"train digit-tasks --train-examples {10**9}": "out of memory: Unable to allocate",
    "train --audio-snr-db=-inf": "audio_snr_db: expected -100 to 100 dB, or inf",
    "train --audio-snr-db nan": "audio_snr_db: expected -100 to 100 dB, or inf",
    "train --visual-noise 1e308": "visual_noise: expected 0 to 1000, got 1e+308",
    "train --visual-occlusion 9": "visual_occlusion: expected 0 to 8",
    "train --visual-occlusion=-1": "visual_occlusion: expected 0 to 8",
    "train --contradiction 1.5": "contradiction: expected 0 to 1, got 1.5",
    "train multi-digits --right-noise 2": "right_noise: expected 0 to 1, got 2.0",
    "train digit-tasks --num-tasks 1": "num_tasks: expected 2 to 8, got 1",
    # What does not go together
    "train multi-digits --fusion film": "not an option of multi-digits, but of multim",
    "train --sharing hard": "sharing: not an option of av-digits, but of multi-task",
    "train --method ogm --refresh 2": "refresh: not an option of ogm, but of rules",
    "train --method single-task": "method: expected one for multimodal tasks, got sin",
    "train --method uniform --no-magnitude": "magnitude: not an option of uniform",
    "train --fusion bottleneck": "fusion: expected another one, or --encoder transf",
    "train --cache c --no-cache": "--no-cache: not allowed with argument --cache",
    "train --resume": "--resume needs the --workdir of the run to continue",
    "train --resume=3 --workdir r": "--resume: ignored explicit argument '3'",
    "train --resume --workdir .": "workdir .: holds no run (no config.json)",
    "train --data r": "data: expected nothing for av-digits, got r",
    "train crema-d": "data: expected the directory of prepared data for crema-d, got N",
    "train crema-d --data r": "data: r holds no prepared data",
    "train multi-digits --data r": "r/train-images-idx3-ubyte is missing",
    # Devices
    "train --mesh foo": "mesh: expected auto, or sizes as data=4,model=2, got 'foo'",
    "train --mesh data=0": "mesh: expected auto, or sizes as data=4,model=2",
    "train --mesh data=2,data=2": "mesh: expected auto, or sizes as data=4,model=2",
    f"train --mesh data={10**20}": "mesh: expected at most the 8 devices (cpu)",
    "train --device cpu --mesh data=100000": "at most 1024 CPU devices in a process",
    "train --device abacus": "unknown device abacus; expected one of cpu, gpu, tpu",
    "train --coordinator x:1": "--coordinator needs --num-processes and --process-id",
    # Paths
    "train --workdir ''": "--workdir: expected a path (./ and a name), got ''",
    "train --workdir -": "--workdir: expected a path (./ and a name), got '-'",
    "train --workdir": "argument --workdir: expected one argument",
    "evaluate ''": "workdir: expected a path (./ and a name), got ''",
    "evaluate /dev/null": "workdir /dev/null: holds no run (no config.json)",
    "evaluate r": "workdir r: holds no run (no config.json)",
    "plot /dev/null": "workdir /dev/null: holds no metrics to plot",
    "report . --out o": "workdir .: holds neither a run (config.json) nor a compar",
    "report ''": "WORKDIR: expected a path (./ and a name), got ''",
    "plot trajectories --methods mgda,": "unknown method ''",
    "plot trajectories --out x.xyz": "--out: expected one of *.png, *.pdf, *.svg, got",
    "plot trajectories --out /proc/x.png": "No such file or directory",
    "train --data ''": "--data: expected a path (./ and a name), got ''",
    "prepare arrays --raw . --out ''": "--out: expected a path (./ and a name)",
    # Studies
    "compare --lr-grid ''": "--lr-grid: invalid list of float value: ''",
    "compare --lr-grid 0.1,0.1": "lr_grid: expected different values, got (0.1, 0.1)",
    "compare --lr-grid nan": "lr: expected a finite number > 0 that float32 holds",
    "compare --seeds 1": "seeds: expected 2 to 10000, got 1",
    f"compare --seeds {10**20}": "seeds: expected 2 to 10000, got 10000000000000000000",
    "compare --tune-seeds -1": "tune_seeds: expected 1 to 10000, got -1",
    "compare --workers 0": "--workers: expected 1 to ",
    "compare --workers 1000000000": "--workers: expected 1 to ",
    "compare --together 0": "--together: expected auto or at least 1, got 0",
    "compare --together x": "--together: expected auto or at least 1, got x",
    "compare --num-processes 0": "num_processes: expected at least 1, got 0",
    "compare --process-id 3": "process_id: expected 0 to 0, got 3",
    "compare --patience nan": "patience: expected seconds > 0, got nan",
    "compare --methods mgda,mgda": "methods: expected different values",
    "compare multi-digits --methods ogm": "method: expected one for multi-task tasks",
    "compare --visual-occlusion 9": "visual_occlusion: expected 0 to 8",
    "compare --workdir /dev/null": "File exists: /dev/null",
    "compare --workdir /proc/x": "No such file or directory: /proc/x",
    "compare nowhere:task": "task nowhere:task: there is no module nowhere",
    "sweep --settings ''": "unknown setting ''; expected one of as it is, ",
    "sweep --seeds 1": "seeds: expected 2 to 10000, got 1",
    "sweep --workers 0": "--workers: expected 1 to ",
    # Tasks
    "train :task": "was made in Python, and has to be given as task=",
    "train ..:task": "task ..:task: expected module:function",
    "train 'a b:task'": "task a b:task: expected module:function",
    "train nowhere:task": "there is no module nowhere, here or installed",
    "train json.nowhere:task": "there is no module json.nowhere, here or installed",
    "train json:decoder": "task json:decoder: json has no function 'decoder'",
    "train json:": "task json:: json has no function ''",
    "train os:getcwd": "expected a training.Task to be returned, got str",
    "train json:dumps": "dumps fails: TypeError: Object of type Config is not JSON",
    "train builtins:exit": "exit fails: SystemExit: None",
}


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_command_line(line, call):
    assert LINES[line] in call(*shlex.split(line))


@pytest.mark.parametrize(
    "text", ["a\0b", "a\nb", os.fsdecode(b"a\xff"), "\x1b[2J"], ids=ascii
)
@pytest.mark.parametrize("command", ["train --workdir", "evaluate", "check"])
def test_a_path_that_cannot_be_named(command, text, call):
    assert "expected a path in UTF-8 without control" in call(*command.split(), text)


DEEP = 100_000
FILES = {
    "a.toml": [
        ("lr = ", "a.toml: Invalid value"),
        ("lr = 'fast'", "lr: expected float or int, got 'fast'"),
        ("lr = true", "lr: expected float or int, got True"),
        ("lr = nan", "lr: expected a finite number > 0"),
        (
            "lr = 1979-05-27",
            "lr: expected float or int, got datetime.date(1979, 5, 27)",
        ),
        ("lr = [0.1]", "lr: expected float or int, got [0.1]"),
        ("[lr]\nx = 1", "lr: expected float or int, got {'x': 1}"),
        ("lr = 0.1\nlr = 0.2", "a.toml: Cannot overwrite a value"),
        ("seed = 1.0", "seed: expected int, got 1.0"),
        ("method = 3", "method: expected one of joint"),
        ("method = ['mgda']", "method: expected one of joint"),
        ("task = 3", "task: expected str, got 3"),
        ("rate = 1", "a.toml: unknown name 'rate'; known are ['alpha', "),
        ("'' = 1", "a.toml: unknown name ''"),
        ("sharing = 'hard'", "sharing: not an option of av-digits"),
        (f"seed = {'9' * 5000}", "a.toml: Exceeds the limit"),
        (f"lr = {'[' * DEEP}", "a.toml: values are nested too deep"),
        (b"\xff\xfe\x00", "a.toml: 'utf-8' codec can't decode byte 0xff"),
        (b"lr = 1\x00", "a.toml: "),
        ("#" * 2**20 + "\n", "a.toml: expected at most 1048576 bytes"),
    ],
    "a.json": [
        ("", "a.json: Expecting value: line 1 column 1"),
        ("{", "a.json: Expecting property name"),
        ("[1]", "a.json: expected names and values"),
        ("null", "a.json: expected names and values"),
        ('{"lr": NaN}', "lr: expected a finite number > 0"),
        ('{"lr": 1e999}', "lr: expected a finite number > 0"),
        ('{"lr": "0.1"}', "lr: expected float or int, got '0.1'"),
        ('{"lr": 1, "lr": 2}', "a.json: 'lr' stands there twice"),
        ('{"task": null}', "task: expected str, got None"),
        (f'{{"lr": {"1" * 400}}}', "lr: expected a finite number > 0"),
        (f'{{"lr": {"[" * DEEP}', "a.json: values are nested too deep"),
        ('{"seed": 1}' + "\0", "a.json: Extra data"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(name, *case, id=f"{name}-{i}")
        for name, cases in FILES.items()
        for i, case in enumerate(cases)
    ],
)
def test_a_wrong_config(name, content, message, call, tmp_path):
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(content)
    line = call("train", "--config", name, "--workdir", "r")
    assert message in line
    assert len(line) < 1100


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.toml", "config nowhere.toml: No such file or directory"),
        (".", "config .: Is a directory"),
        ("/dev/zero", "config /dev/zero: expected at most 1048576 bytes"),
        ("/proc/self/mem", "config /proc/self/mem: "),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_config_that_is_no_file(path, message, call):
    assert message in call("train", "--config", path)


@pytest.mark.parametrize("name", ["a.toml", "a.json"])
def test_a_config_as_editors_on_windows_write_it(name, call, tmp_path):
    text = "seed = -5" if name == "a.toml" else '{"seed": -5}'
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert "seed: expected 0 to 2**31 - 1, got -5" in call("train", "--config", name)


OWN = {
    "def task(": "own cannot be imported: SyntaxError: '(' was never closed (own.p",
    "import nowhere": "own cannot be imported: ModuleNotFoundError: No module named",
    "from json import nowhere": "own cannot be imported: ImportError: cannot import n",
    "raise KeyError(3)": "own cannot be imported: KeyError: 3 (OWN, line 1)",
    "import sys\nsys.exit(0)": "own cannot be imported: SystemExit: 0 (OWN, line 2)",
    "": "task own:task: own has no function 'task'",
    "task = 3": "task own:task: own has no function 'task'",
    "def task(): pass": "expected a training.Task to be returned, got NoneType",
    "def task(a, b): pass": "expected a function of nothing, or of a config, not of a,",
    "def task(*, a): pass": "expected a function of nothing, or of a config, not of a",
    "def task():\n  return 1 / 0": "task fails: ZeroDivisionError: division by zero (",
    "def task():\n  return open('nowhere')": "No such file or directory: nowhere (OWN",
    "def task():\n  return task()": "task fails: RecursionError: maximum recursion dep",
    "def task():\n  raise SystemExit('x')": "task fails: SystemExit: x (OWN, line 2)",
    "def task():\n  raise ValueError('a\\nb')": "mmpareto: a b (OWN, line 2)",
    "def task():\n  raise ValueError": "mmpareto: ValueError (OWN, line 2)",
    "def task():\n  return bytearray(10**18)": "out of memory: MemoryError "
    "(OWN, line 2); less takes a smaller --batch-size, --width or --train-examples",
    "def task():\n  from mmpareto_jax import training\n"
    "  return training.classification({})": "(OWN, line 3)",
}


@pytest.mark.parametrize("code", OWN)
def test_a_wrong_task_of_the_users_own(code, call, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "own", raising=False)
    (tmp_path / "own.py").write_text(code + "\n")
    line = call("train", "own:task", "--workdir", "r")
    assert OWN[code].replace("OWN", str(tmp_path / "own.py")) in line


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RecursionError("too deep"), 70, "RecursionError: too deep: a fault "),
        (TypeError("no\nreally"), 70, "TypeError: no: a fault "),
        (AssertionError(), 70, "AssertionError: a fault "),
        (SystemExit("x"), 70, "SystemExit: x: a fault "),
        (MemoryError("2 TiB"), 2, "out of memory: 2 TiB"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GiB\nmore"),
            2,
            "out of memory: RESOURCE_EXHAUSTED: 9 GiB",
        ),
        (jax.errors.JaxRuntimeError("INTERNAL: x"), 70, "JaxRuntimeError: INTERNAL: x"),
        (OSError("no number"), 2, "no number"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (ValueError("a" * 5000), 2, "a" * 900),
    ],
    ids=lambda x: repr(x)[:30],
)
def test_what_a_command_does_not_expect(error, code, message, call, monkeypatch):
    """A fault has an exit code of its own, and says how its traceback is seen."""

    def fails(*_):
        raise error

    monkeypatch.setitem(cli._RUN, "check", fails)
    line = call("check", "r", code=code)
    assert line.startswith(f"mmpareto: {message}")
    assert f"{__file__}, line " in line or len(line) > 1000
    assert line.endswith("--debug shows the traceback") == (code == 70)


@pytest.mark.parametrize("arguments", [("--debug", "check"), ("check", "--debug")])
def test_debug_shows_the_traceback(arguments, monkeypatch, capsys):
    def fails(*_):
        raise KeyError("x")

    monkeypatch.setitem(cli._RUN, "check", fails)
    assert cli.main([*arguments, "r"]) == 70
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert "KeyError: 'x'\nmmpareto: KeyError: 'x': a fault in " in err
