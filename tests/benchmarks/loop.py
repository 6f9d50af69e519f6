"""What a step costs in the loop beyond the compiled step: metrics, files, the feed.

``python tests/benchmarks/loop.py`` trains the default av-digits job some epochs at a
time, with the bare step and with the loop that writes every so many steps, in turn, and
prints medians relative to the bare step's. Evaluation and checkpoints are left out.
"""

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import jax

from mmpareto_jax.data import train_batches
from mmpareto_jax.training import Callback, Config, JsonLines, TensorBoard
from mmpareto_jax.training._run.callbacks import Callbacks, Start
from mmpareto_jax.training._run.fit import fit
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._tasks.registry import make_task


def bare(program, config, task):
    """The compiled step and its batches, nothing else; metrics are dropped."""
    state = program.restart(0, config.lr)
    batches = train_batches(
        task.data["train"],
        batch_size=config.batch_size,
        seed=0,
        transform=task.transform,
    )
    for _ in range(config.num_steps):
        state, _ = program.step(state, next(batches))
    return state


def loop(program, config, task, callbacks):
    """As ``train`` does it, without checkpoints."""
    with (
        tempfile.TemporaryDirectory() as workdir,
        contextlib.closing(Callbacks(callbacks)) as hear,
    ):
        start = Start(config, task, program.groups, Path(workdir), 0)
        hear.on_start(start)
        return fit(
            program._replace(evaluate=lambda *_: {}),
            config,
            task,
            program.restart(0, config.lr),
            on_step=hear.on_step,
            on_tick=hear.on_tick,
            on_pause=lambda *_: None,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="av-digits")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    config = Config(options.task, epochs=options.epochs)
    task = make_task(config)
    program = make_program(config, task)
    ways = {"bare step": lambda: bare(program, config, task)}
    for every in (1, 10, 50):
        own = dataclasses.replace(config, log_every=every)
        for name, made in (
            ("means alone", lambda: [Callback()]),
            ("files", lambda: [JsonLines(), TensorBoard()]),
        ):
            ways[f"{name}, every {every}"] = lambda own=own, made=made: loop(
                program, own, task, made()
            )
    wall = {name: [] for name in ways}
    cpu = {name: [] for name in ways}
    for repeat in range(options.repeats + 1):
        for name, way in ways.items():
            began = time.perf_counter(), time.process_time()
            jax.block_until_ready(way())
            if repeat:  # the first one compiles
                wall[name].append(time.perf_counter() - began[0])
                cpu[name].append(time.process_time() - began[1])
    found = {k: (statistics.median(wall[k]), statistics.median(cpu[k])) for k in ways}
    base = found["bare step"]
    print(
        f"{options.task}: {config.num_steps} steps, {options.repeats} repeats, ", end=""
    )
    print(f"bare step {1e3 * base[0] / config.num_steps:.2f} ms\n")
    print("| | wall time | CPU time |\n|---|---|---|")
    for name, (seconds, used) in found.items():
        print(f"| {name} | {seconds / base[0]:.3f} | {used / base[1]:.3f} |")


if __name__ == "__main__":
    main()
