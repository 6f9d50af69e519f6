"""Tests for the command line: what it prints, its exit codes, one line per mistake."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from mmpareto_jax import __version__, training
from mmpareto_jax._cli.options import of_others
from mmpareto_jax._cli.parser import make_parser
from mmpareto_jax.cli import main
from mmpareto_jax.training._options.groups import GROUPS

SMALL = ["--train-examples", "32", "--batch-size", "16", "--epochs", "1"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "av-digits", "--workdir", str(path), *SMALL]) == 0
    return path


def test_train_prints_the_table_and_where_it_wrote(tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text('method = "pareto"\ntrain_examples = 32\nbatch_size = 8\n')
    path = tmp_path / "run"
    flags = ["--steps", "1", "--batch-size", "16"]
    assert main(["train", "--config", str(config), "--workdir", str(path), *flags]) == 0
    out = capsys.readouterr().out
    for word in ("pareto", "multimodal", "audio", "visual", "validation", "test"):
        assert word in out
    assert "multimodal ↑ " in out
    assert "↑ more is better; shares are in %.\n" in out
    assert "conflicting steps, audio_encoder (joint, audio)" in out
    assert str(path) in out
    assert (path / "figures" / "cosine.png").stat().st_size > 5000
    # Flags go before the file.
    assert '"batch_size": 16' in (path / "config.json").read_text()


def test_evaluate_and_plot(workdir, capsys):
    assert main(["evaluate", str(workdir)]) == 0
    assert "multimodal" in capsys.readouterr().out
    assert main(["plot", str(workdir)]) == 0
    assert "learning_curves.png" in capsys.readouterr().out


def test_trajectories(tmp_path, capsys):
    path = tmp_path / "new" / "picture.png"
    arguments = ["plot", "trajectories", "--problem", "element-wise"]
    arguments += ["--methods", "uniform,mmpareto", "--out", str(path)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "mmpareto" in out
    assert str(path) in out
    assert path.stat().st_size > 20_000


def test_resume_takes_the_config_of_the_run(workdir):
    assert main(["train", "--workdir", str(workdir), "--resume"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["train", "--lr", "-1"], "lr: expected a finite number > 0 that"),
        (["train", "--method", "x"], "unknown method x; mmpareto methods lists them"),
        (["train", "--unknown"], "mmpareto train: unknown option --unknown\n"),
        (["train", "av-digits", "multi-digits"], "unrecognized arguments: multi-digi"),
        (["train", "--resume"], "--resume needs the --workdir"),
        (["train", "--config", "/nowhere.toml"], "config /nowhere.toml"),
        (["train", "--workdir", "WORKDIR"], "already holds a run"),
        (["train", "--workdir", "WORKDIR", "--resume", "--seed", "1"], "another con"),
        (["evaluate", "/nowhere"], "holds no run"),
        (["plot", "/nowhere"], "holds no metrics"),
        (["report", "/nowhere"], "holds neither a run"),
        (["plot", "trajectories", "--problem", "x"], "problem x; expected one of toy"),
        (["prepare", "crema-d", "--out", "x"], "prepare: raw: crema-d needs"),
        (
            ["plot", "trajectories", "--methods", "x"],
            "mmpareto: unknown method x",
        ),
        ([], "arguments are required: COMMAND"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, workdir, capsys):
    arguments = [str(workdir) if a == "WORKDIR" else a for a in arguments]
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --metod X", "train: unknown option --metod; did you mean --method?"),
        (
            "train --batchsize=8",
            "train: unknown option --batchsize; did you mean --b",
        ),
        ("train --lr 0.1 -seed 3", "train: unknown option -seed; did you mean --seed?"),
        ("train av-digit", "did you mean av-digits, or module:function?"),
        ("train ot", "train: unknown task ot; expected one of av-digits, "),
        ("train ot", "cityscapes, or module:function"),
        ("train av-digits --noise 1", "--noise; did you mean --visual-noise?"),
        ("train --noise 1", "--noise; did you mean --visual-noise?"),
        ("train multi-digits --noise 1", "--noise; did you mean --right-noise?"),
        ("train av-digits --right-nois 1", "did you mean --right-noise?"),
        ("train --method=ogm --gama 1", "--gama; did you mean --gamma?"),
        ("train --method mgdaa", "train: unknown method mgdaa; did you mean mgda?"),
        ("train --method MGDA", "train: unknown method MGDA; did you mean mgda?"),
        ("train --sharing hart", "train: unknown sharing hart; did you mean hard?"),
        ("train --precision int8", "unknown precision int8; expected one of f32, bf16"),
        ("evaluate x --chekpoint best", "evaluate: unknown option --chekpoint; did yo"),
        ("evaluate x --check best", "evaluate: unknown option --check; did you mean -"),
        ("plot x --outt y", "plot: unknown option --outt; did you mean --out?"),
        ("plot trajectories --problem toi", "unknown problem toi; did you mean toy?"),
        ("report x --ou y", "report: unknown option --ou; did you mean --out?"),
        ("compare --method x", "compare: unknown option --method; did you mean --meth"),
        ("compare av-digit", "compare: unknown task av-digit; did you mean av-digits"),
        ("compare --methods mgda,pcgrd", "unknown method pcgrd; did you mean pcgrad?"),
        (
            "sweep --setings x",
            "sweep: unknown option --setings; did you mean --set",
        ),
        ("sweep --settings widht", "unknown setting widht; did you mean width 16?"),
        (
            "prepare crema --out x",
            "prepare: unknown data set crema; did you mean cr",
        ),
        (
            "prepare crema-d --output x",
            "prepare: unknown option --output; did you me",
        ),
        (
            "prepare crema-d --out x --classes 8",
            "unknown classes 8; expected one of ",
        ),
        ("methods mgad", "methods: unknown method mgad; did you mean mgda?"),
        ("datasets --raw", "datasets: unknown option --raw"),
        ("completion csh", "completion: unknown shell csh; did you mean zsh?"),
        ("trian", "mmpareto: unknown command trian; did you mean train?"),
        ("--verson", "mmpareto: unknown option --verson; did you mean --version?"),
    ],
)
def test_the_nearest_right_word_is_named(arguments, message, capsys):
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mmpareto")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_flags_of_other_tasks_and_methods():
    others = of_others(["scenes", "--method=nash_mtl", "--lr", "1"])
    assert {"--fusion", "--right-noise", "--gamma", "--alpha"} <= others
    assert others.isdisjoint({"--sharing", "--refresh", "--lr", "--encoder"})


def test_what_follows_an_option_or_two_dashes_is_no_option():
    arguments = vars(make_parser().parse_args(["train", "--audio-snr-db", "-3"]))
    assert arguments["audio_snr_db"] == -3.0
    assert make_parser().parse_args(["report", "--", "--odd"]).workdirs == ["--odd"]
    assert make_parser().parse_args(["train", "--lr=-1"]).lr == -1.0


def test_a_task_of_the_users_own_is_module_and_function():
    assert make_parser().parse_args(["train", "own.module:task"]).task == (
        "own.module:task"
    )


def test_the_process_own_arguments_are_checked(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mmpareto", "train", "--metod", "x"])
    assert main() == 2
    assert "did you mean --method?" in capsys.readouterr().err


def test_module_and_version():
    out = subprocess.run(
        [sys.executable, "-m", "mmpareto_jax", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == __version__


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("train", "evaluate", "plot", "report"))


def sections(text):
    """Title -> the flags under it, of a help text."""
    found = {}
    for part in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        title, _, rest = part.partition(":\n")
        flags = re.findall(r"^  --([a-z-]+)", rest, re.MULTILINE)
        found[title] = [flag.replace("-", "_") for flag in flags]
    return found


@pytest.mark.parametrize(
    ("command", "without"),
    [
        ("train", {"task"}),
        ("compare", {"task", "method", "lr", "seed", "probe_every", "log_every"}),
    ],
)
def test_help_has_each_option_once_under_its_owner(command, without, capsys):
    assert main([command, "--help"]) == 0
    found = sections(capsys.readouterr().out)
    expected = {
        group.title: [
            field.name
            for field in dataclasses.fields(group.options)
            if field.name not in without
        ]
        for group in GROUPS
    }
    assert {title: found[title] for title in expected} == expected
    flags = [flag for each in found.values() for flag in each]
    assert len(flags) == len(set(flags))
    assert found["options of av-digits"][0] == "audio_snr_db"
    assert found["options of multi-digits"] == ["right_noise"]


HELP = """
import sys
from mmpareto_jax._cli.parser import make_parser
from mmpareto_jax.cli import main
assert main(["train", "--help"]) == 0
print({"jax", "flax", "numpy"} & set(sys.modules))
"""


def test_help_waits_for_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("set()\n")


def test_compare_says_first_how_long_it_is(tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise ValueError("stopped here")

    monkeypatch.setattr(training, "compare", stopped)
    arguments = ["compare", "--methods", "uniform,mmpareto", "--workdir", str(tmp_path)]
    assert main(arguments) == 2
    length = "44 runs: 24 to tune, 20 that count"
    assert capsys.readouterr().err.startswith(f"{length}\nmmpareto: stopped here")
    plan = training.Comparison(
        training.Config(), ("uniform", "mmpareto"), (0.05, 0.1, 0.2, 0.4)
    )
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(dataclasses.asdict(plan)))
    rest = {"validation": {"accuracy/joint": 0.5}, "test": {}, "groups": {}}
    records = [{"method": "uniform", "lr": 0.1, "seed": i, **rest} for i in range(3)]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (tmp_path / "runs.jsonl").write_text(lines)
    assert main(arguments) == 2
    there = f"{length}; 3 are there already"
    assert capsys.readouterr().err.startswith(f"{there}\nmmpareto: stopped here")
    # Those of another comparison are not: it is refused, in one line.
    assert main([*arguments, "--seeds", "3"]) == 2
    assert capsys.readouterr().err.startswith("mmpareto: stopped here")


def test_who_reads_no_further_sees_no_traceback():
    command = f"{sys.executable} -m mmpareto_jax methods | head -n 1"
    shell = ["bash", "-c", f"set -o pipefail; {command}"]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert done.returncode in (0, 141)  # all may be written before head has read


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "--workdir", str(tmp_path / "file" / "run")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_can_go_on_says_so(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "compare", interrupted)
    arguments = ["--methods", "uniform,mmpareto", "--workdir", str(tmp_path)]
    assert main(["compare", *arguments]) == 130
    assert "Stopped. To go on: the same command." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator", "host"], "--coordinator: expected HOST:PORT, got host"),
        (["--num-processes", "0"], "--num-processes: expected at least 1, got 0"),
    ],
)
def test_mistakes_of_processes(flags, message, capsys):
    three = ["--coordinator", "host:1", "--num-processes", "2", "--process-id", "0"]
    assert main(["train", *three, *flags]) == 2
    assert message in capsys.readouterr().err
