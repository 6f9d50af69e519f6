"""Tests for progress: lines that fit, what they say, and when in a file."""

import io
import re
import types

import pytest
from rich.cells import cell_len
from rich.console import Console

from mmpareto_jax._cli import progress
from mmpareto_jax._cli.line import Line
from mmpareto_jax._cli.training_progress import TrainingProgress
from mmpareto_jax.training import Measure

MAIN = Measure("accuracy/joint", "multimodal")


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def __call__(self):
        return self.now


def run_of(measures=(MAIN,), step=0, num_steps=465, task="av-digits"):
    """What a callback is given: as far as progress looks at it."""
    config = types.SimpleNamespace(
        task=task, method="mmpareto", num_steps=num_steps, steps_per_epoch=31
    )
    task = types.SimpleNamespace(measures=measures)
    return types.SimpleNamespace(config=config, task=task, step=step)


def lines(text):
    """What a terminal has shown, without the codes that colour and move."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return [line for line in re.split(r"[\r\n]", plain) if line.strip()]


class NeverFetched:
    """A scalar on the device."""

    def __float__(self):
        pytest.fail("a metric was fetched")

    __array__ = item = __float__


def train(console, run, epochs=3, seconds_per_step=1 / 41):
    clock = Clock()
    shown = TrainingProgress(console, clock)
    shown.on_start(run)
    clock.now += 7  # compilation
    for step in range(run.step + 1, epochs * 31 + 1):
        clock.now += seconds_per_step
        shown.on_tick(step)
        if step % 31 == 0:
            shown.on_epoch(step, {"accuracy/joint": 0.843, "loss/joint": 0.5})
    return shown


def terminal(width):
    return Console(file=io.StringIO(), width=width, force_terminal=True)


def file():
    return Console(file=io.StringIO(), width=80, force_terminal=False)


NAMES = ("av-digits", "my_own_module.tasks:" + "x" * 200, "漢" * 60)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("what", NAMES, ids=["short", "long", "wide"])
def test_no_line_in_a_terminal_is_wider_than_it(width, what):
    console = terminal(width)
    shown = train(console, run_of(task=what))
    shown.on_end(None)
    found = lines(console.file.getvalue())
    length, *drawn = found
    assert (
        length.endswith("mmpareto: 15 epochs, 465 steps")
        or width == 40
        or not what.isascii()
    )
    assert drawn
    assert max(map(cell_len, found)) <= width


def test_what_the_line_says_at_80_and_at_60_columns():
    line = Line("av-digits mmpareto", "steps", 465, clock=(clock := Clock()))
    line.note = "multimodal 84.3 %"
    clock.now += 93 / 41
    line.update(93)
    end = "left 0:09  multimodal 84.3 %"
    assert line.text(60) == f"av-digits mmpareto  93/465  {end}"
    assert line.text(79) == f"av-digits mmpareto  93/465 steps  41 steps/s  {end}"
    bar = "━" * 6 + "─" * 24
    assert line.text(120) == (
        f"av-digits mmpareto  {bar}  93/465 steps  41 steps/s  {end}"
    )
    assert line.text(40) == "av-digi…mmpareto  93/465  left 0:09"


def test_in_a_file_training_has_a_line_for_its_length_and_each_epoch():
    console = file()
    shown = train(console, run_of())
    shown.on_end(None)
    assert console.file.getvalue().splitlines() == [
        "av-digits mmpareto: 15 epochs, 465 steps",
        "av-digits mmpareto  epoch 1/15  step 31/465  41 steps/s  left 0:11"
        "  multimodal 84.3 %",
        "av-digits mmpareto  epoch 2/15  step 62/465  41 steps/s  left 0:10"
        "  multimodal 84.3 %",
        "av-digits mmpareto  epoch 3/15  step 93/465  41 steps/s  left 0:09"
        "  multimodal 84.3 %",
    ]


def test_the_end_says_how_long_it_took():
    console = file()
    train(console, run_of(num_steps=62), epochs=2)
    assert "step 62/62  41 steps/s  took 0:09  multimodal" in console.file.getvalue()


def test_a_run_that_goes_on_and_ends_within_an_epoch():
    console = file()
    run = run_of(step=62, num_steps=70)
    shown = TrainingProgress(console, clock := Clock())
    shown.on_start(run)
    for step in range(63, 71):
        clock.now += 2.0
        shown.on_tick(step)
    shown.on_epoch(70, {})
    first, last = console.file.getvalue().splitlines()
    assert first.endswith("3 epochs, 70 steps, from step 62")
    # A step in two seconds, of those after the first.
    assert last == "av-digits mmpareto  epoch 3/3  step 70/70  30 steps/min  took 0:16"


def test_measures_that_are_no_shares():
    console = file()
    measure = Measure("error/depth", "depth", higher=False, percent=False)
    shown = TrainingProgress(console, Clock())
    shown.on_start(run_of(measures=(measure,)))
    shown.on_tick(31)
    shown.on_epoch(31, {"error/depth": 0.123456})
    assert console.file.getvalue().endswith("  depth 0.1235\n")


def test_closing_twice_and_before_the_start():
    TrainingProgress(file()).close()
    shown = train(terminal(80), run_of(), epochs=1)
    shown.close()
    shown.on_end(None)


def test_runs_have_a_line_each():
    console, clock = file(), Clock()
    shown = progress.runs("compare av-digits", done=4, console=console, clock=clock)
    with shown as do:
        for done in (5, 6):
            clock.now += 20.0
            do(done, 176, "tuning: mmpareto")
    assert console.file.getvalue().splitlines() == [
        "compare av-digits  5/176 runs  3.0 runs/min  left 57:00  tuning: mmpareto",
        "compare av-digits  6/176 runs  3.0 runs/min  left 56:40  tuning: mmpareto",
    ]


def test_settings_are_told_of_before_and_counted_at_the_end():
    console, clock = file(), Clock()
    with progress.settings(console, clock) as do:
        for done, name in enumerate(("as it is", "batch 16")):
            do(done, 2, name)
            clock.now += 3600.0
    assert console.file.getvalue().splitlines() == [
        "sweep  0/2 settings  as it is",
        "sweep  1/2 settings  1.0 settings/h  left 1:00:00  batch 16",
        "sweep  2/2 settings  1.0 settings/h  took 2:00:00",
    ]


def test_examples_have_a_line_in_half_a_minute_and_at_the_end():
    console, clock = file(), Clock()
    with progress.preparation("crema-d", console=console, clock=clock) as do:
        for done in range(32, 7442, 32):
            clock.now += 1.0
            do(done, 7442, 3)
        do(7442, 7442, 4)
    found = console.file.getvalue().splitlines()
    assert len(found) == 232 // 30 + 1
    assert found[0].startswith(
        "prepare crema-d  960/7442 examples  32 examples/s  left"
    )
    assert found[-1].endswith("took 3:52  4 left out")


@pytest.mark.parametrize("width", [60, 80])
def test_other_commands_fit_a_terminal(width):
    console = terminal(width)
    with progress.runs("compare kinetics-sounds", console=console) as do:
        for done in range(1, 177):
            do(done, 176, "final: geometric-mean")
    with progress.preparation("kinetics-sounds", console=console) as do:
        do(5, 19_000, 3)
    found = lines(console.file.getvalue())
    assert max(map(cell_len, found)) < width
    assert "  176/176  took 0:0" in found[0]


def test_an_interrupted_command_gives_the_terminal_back():
    console = terminal(80)
    with pytest.raises(KeyboardInterrupt), progress.runs("x", console=console):
        raise KeyboardInterrupt
    assert console.file.getvalue().endswith("\x1b[?25h")  # the cursor is there again


def test_the_rate_is_that_of_the_last_minute():
    line = Line("x", "steps", 10_000, clock=(clock := Clock()))
    for step in range(1, 1001):
        clock.now += 0.1 if step <= 500 else 1.0
        line.update(step)
    assert line.rate == pytest.approx(1.0)
