"""What it costs and what it loses to find weights every n steps only.

For each method the learning rate is tuned at n = 1 on validation; then every n has the
same seeds. Prints Markdown; with ``--figure`` draws accuracy and cosine over n. Runs
are written to ``--records`` as they end, and a second call goes on from there.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpareto_jax.data import train_batches
from mmpareto_jax.training import Config, paired
from mmpareto_jax.training._methods.registry import method_of
from mmpareto_jax.training._run.gradients import Inputs, gradients
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._tasks.registry import make_task

METHODS = "mmpareto,cagrad,nash-mtl,upgrad,config"
TITLES = (
    "method",
    "n",
    "lr",
    "test, %",
    "− n = 1",
    "at the last epoch",
    "broken",
    "cosine with fresh",
    "ascends, % of steps",
    "step / plain",
)
LOOK_EVERY, LOOK_SEEDS, TUNING_SEED = 7, 3, 10_000


@functools.cache
def program_of(config, plain=False):
    task = make_task(config)
    return task, make_program(config, task, plain=plain)


@functools.cache
def looks_of(config):
    """A compiled function: the cosine of the gradient that is taken with a fresh one,
    and whether it ascends an objective, the mean over the groups.
    """
    task, method = make_task(config), method_of(config)
    model = task.make_model(nnx.Rngs(0))
    graphdef, variables = nnx.split(model)
    params, rest = nnx.split_state(variables, nnx.Param, ...)

    def model_of(params, rest):
        return nnx.merge(graphdef, params, rest, copy=True)

    example = {k: x[: config.batch_size] for k, x in task.data["train"].items()}
    inputs = Inputs(rest, (), example)
    kept, fresh = (
        gradients(own, task, method, model_of, (params, inputs))
        for own in (config, dataclasses.replace(config, refresh=1))
    )

    @jax.jit
    def look(state, batch):
        inputs = Inputs(state.rest, state.memory, batch)
        combination = state.opt_state[0]
        taken = kept.of(combination, state.params, inputs)
        own = combination.rule if config.refresh > 1 else combination
        new = fresh.of(own, state.params, inputs)
        by_group = {}
        leaves = zip(
            jax.tree.leaves_with_path(new.objectives),
            jax.tree.leaves(taken.gradient),
            jax.tree.leaves(new.gradient),
            strict=True,
        )
        for (path, rows), a, b in leaves:
            name = fresh.groups.group_of(
                jax.tree_util.keystr(path, simple=True, separator="/")
            )
            if len(rows) > 1:
                by_group.setdefault(name, []).append(
                    jnp.stack(
                        [
                            jnp.vdot(a, b),
                            jnp.vdot(a, a),
                            jnp.vdot(b, b),
                            *(jnp.vdot(r, a) for r in rows),
                        ]
                    )
                )
        sums = [sum(x) for x in by_group.values()]
        cosines = [s[0] / jnp.sqrt(s[1] * s[2]) for s in sums]
        ascends = [jnp.any(s[3:] < 0) for s in sums]
        return jnp.mean(jnp.stack(cosines)), jnp.mean(jnp.stack(ascends) * 1.0)

    return look


def run(config):
    """Test accuracy at the best validation, at the end, and what was looked at."""
    task, program = program_of(dataclasses.replace(config, seed=0, lr=1.0))
    main = task.measures[0].name
    look = (
        looks_of(dataclasses.replace(config, seed=0, lr=1.0))
        if config.seed < LOOK_SEEDS
        else None
    )
    state, best, looks = program.restart(config.seed, config.lr), (-1.0, 0.0), []
    batches = train_batches(
        task.data["train"],
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=0,
        transform=task.transform,
    )
    for step in range(config.num_steps):
        batch = next(batches)
        if look and step % LOOK_EVERY == 3:
            looks.append([float(x) for x in look(state, batch)])
        state, _ = program.step(state, batch)
        if (step + 1) % config.steps_per_epoch == 0:
            score = program.evaluate(state, task.data["validation"])[main]
            if score >= best[0]:
                best = score, program.evaluate(state, task.data["test"])[main]
    last = program.evaluate(state, task.data["test"])[main]
    return {
        "method": config.method,
        "refresh": config.refresh,
        "lr": config.lr,
        "seed": config.seed,
        "validation": best[0],
        "test": best[1],
        "last": last,
        "looks": looks,
    }


def step_times(configs, rounds=40):
    """Median seconds of a step of each, taken in turn; the first is the plain sum."""
    prepared = []
    for k, config in enumerate(configs):
        task, program = program_of(
            dataclasses.replace(config, seed=0, lr=1.0), plain=k == 0
        )
        batch = next(
            train_batches(
                task.data["train"],
                batch_size=config.batch_size,
                seed=0,
                start_step=0,
                transform=task.transform,
            )
        )
        prepared.append([program.step, program.restart(0, 0.01), batch])
    found = [[] for _ in configs]
    for i in range(rounds):
        for own, times in zip(prepared, found, strict=True):
            start = time.perf_counter()
            own[1], values = own[0](own[1], own[2])
            jax.block_until_ready((own[1], values))
            if i >= 3:
                times.append(time.perf_counter() - start)
    return [float(np.mean(np.sort(t)[: len(t) * 9 // 10])) for t in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="av-digits")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--every", default="1,3,10,30,100")
    parser.add_argument("--lr-grid", default="0.01,0.03,0.1")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tune-seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--records", type=pathlib.Path, default="staleness.jsonl")
    parser.add_argument("--figure", type=pathlib.Path)
    args = parser.parse_args()
    every = [int(x) for x in args.every.split(",")]
    written = (
        [json.loads(x) for x in args.records.read_text().splitlines()]
        if args.records.exists()
        else []
    )

    def found(config):
        for x in written:
            if all(
                x[k] == getattr(config, k) for k in ("method", "refresh", "lr", "seed")
            ):
                return x
        record = run(config)
        written.append(record)
        with args.records.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return record

    base = Config(args.task, epochs=args.epochs, width=args.width)
    table = {}
    print("| " + " | ".join(TITLES) + " |\n" + "|---" * len(TITLES) + "|")
    for method in args.methods.split(","):
        own = dataclasses.replace(base, method=method)
        rates = {
            lr: np.mean(
                [
                    found(dataclasses.replace(own, lr=lr, seed=TUNING_SEED + s))[
                        "validation"
                    ]
                    for s in range(args.tune_seeds)
                ]
            )
            for lr in map(float, args.lr_grid.split(","))
        }
        lr = max(rates, key=rates.get)
        own = dataclasses.replace(own, lr=lr)
        configs = [dataclasses.replace(own, refresh=n) for n in every]
        for config in configs:
            table[method, config.refresh] = [
                found(dataclasses.replace(config, seed=s)) for s in range(args.seeds)
            ]
        plain, *times = step_times([own, *configs])
        for config, seconds in zip(configs, times, strict=True):
            print(
                row(
                    table[method, config.refresh],
                    table[method, every[0]],
                    seconds / plain,
                ),
                flush=True,
            )
        # Compiled programs of many methods fill the memory.
        for cached in (program_of, looks_of):
            cached.cache_clear()
        jax.clear_caches()
    if args.figure:
        draw(table, every, args.figure)


def row(records, first, time_of_step):
    """One line of the table."""
    test, last, before = (
        100 * np.array([x[k] for x in xs])
        for xs, k in ((records, "test"), (records, "last"), (first, "test"))
    )
    looks = np.array([x for r in records for x in r["looks"]])
    difference = "" if records is first else paired(test, before)
    broken = int(np.sum(~np.isfinite([r["validation"] for r in records])))
    cells = (
        records[0]["method"],
        records[0]["refresh"],
        f"{records[0]['lr']:g}",
        f"{test.mean():.1f} ± {test.std(ddof=1):.1f}",
        difference,
        f"{last.mean():.1f}",
        broken,
        f"{looks[:, 0].mean():.3f}",
        f"{100 * looks[:, 1].mean():.1f}",
        f"{time_of_step:.2f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def draw(table, every, path):
    """Accuracy and cosine over n, a line for each method."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for method in dict.fromkeys(m for m, _ in table):
        runs = [table[method, n] for n in every]
        axes[0].plot(
            every,
            [100 * np.mean([r["test"] for r in x]) for x in runs],
            "o-",
            label=method,
        )
        axes[1].plot(
            every, [np.mean([y[0] for r in x for y in r["looks"]]) for x in runs], "o-"
        )
    for axis, title in zip(
        axes, ("test accuracy, %", "cosine with a fresh direction"), strict=True
    ):
        axis.set(
            xscale="log",
            xlabel="steps from one finding of weights to the next",
            title=title,
        )
        axis.set_xticks(every, map(str, every), minor=False)
        axis.minorticks_off()
    figure.legend(loc="outside lower center", ncols=len(axes[0].lines))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
