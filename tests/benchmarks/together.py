"""Runs of one method side by side in one program, against one after the other.

    python tests/benchmarks/together.py [--runs 2,4,16] [--small]

The ratio is the time of a step of all runs, over that of a step of each: below 1,
``mmpareto compare --together auto`` runs them side by side. Batches are made on the
host, as they are in a comparison; compilation is not counted.
"""

import argparse
import dataclasses

import jax
import numpy as np

from mmpareto_jax import training
from mmpareto_jax.training._study import together
from mmpareto_jax.training._study.run_once import program_of
from mmpareto_jax.training._tasks.settled import config_of


def sensors():
    """Two vectors of a clip and its label: an MLP each, and a joint head."""
    rng = np.random.default_rng(0)

    def arrays(size):
        found = {k: rng.normal(size=(size, 32)).astype(np.float32) for k in "ab"}
        return found | {"label": rng.integers(0, 6, size)}

    sizes = {"train": 2048, "validation": 64, "test": 64}
    data = {split: arrays(size) for split, size in sizes.items()}
    return training.classification(data, name="sensors")


def jobs(small):
    """Name -> task, config."""
    size = {"train_examples": 64, "batch_size": 16} if small else {}
    av = training.Config("av-digits", **size)
    digits = training.Config("multi-digits", **size)
    own = sensors()
    return {
        "sensors, two MLPs": (own, config_of(own, training.Config(batch_size=32))),
        "multi-digits": (None, digits),
        "av-digits": (None, av),
    }


def rows(numbers, small=False):
    """Job, ms of a step of one, runs, ratio; as each is measured."""
    for name, (task, config) in jobs(small).items():
        made, program = program_of(config, task)
        one = together._One(program, made, config)
        jax.block_until_ready(one.take())
        for runs in numbers:
            configs = [dataclasses.replace(config, seed=seed) for seed in range(runs)]
            many = together._Many(program, made, configs)
            ratio = together._ratio(one, many) / runs
            alone = 1e3 * together._seconds(one)
            yield name, f"{alone:.1f}", runs, f"{ratio:.2f}"


HEAD = ("task", "ms alone", "runs", "time / one by one")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="2,4,16")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for row in rows([int(x) for x in given.runs.split(",")], given.small):
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
