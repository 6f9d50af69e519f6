"""Kills at random moments, by hand: ``python benchmarks/kills.py [MOMENTS] [SEED]``.

A run, a comparison with two workers and a preparation are killed in turn, each at a
moment that is drawn evenly from the time that it takes, and done again; says what was
there then, and whether it came to the same.
"""

import json
import pathlib
import random
import signal
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import faults

from mmpareto_jax.training import read_runs

LINES = ["small_tasks:lines", "--batch-size", "16"]


def commands(raw):
    train = ["train", *LINES, "--steps", "60", "--log-every", "3"]
    both = ["compare", *LINES, "--steps", "8", "--methods", "uniform,mmpareto"]
    both += ["--lr-grid", "0.1", "--seeds", "4", "--together", "1", "--workers", "2"]
    prepare = ["prepare", "arrays", "--raw", raw]
    return {
        "train": ([*train, "--workdir"], ["train", "--resume", "--workdir"]),
        "compare": ([*both, "--workdir"],) * 2,
        "prepare": ([*prepare, "--out"],) * 2,
    }


def equal(name, one, other):
    """Whether they came to the same, to the bit; two workers each have one thread."""
    if name == "train":
        return faults.same(one, other)
    if name == "prepare":
        digests = [json.loads((x / "index.json").read_text()) for x in (one, other)]
        return digests[0]["sha256"] == digests[1]["sha256"]
    keys = ("method", "lr", "seed", "validation", "test")
    found = [
        sorted(json.dumps({k: r[k] for k in keys}) for r in read_runs(x))
        for x in (one, other)
    ]
    return found[0] == found[1]


def main(moments=50, seed=0):
    draw = random.Random(seed)
    folder = pathlib.Path(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    raw = folder / "raw.npz"
    image = rng.integers(255, size=(4000, 32, 32, 1), dtype=np.uint8)
    motion = rng.normal(size=(4000, 6, 3)).astype(np.float32)
    np.savez(raw, image=image, motion=motion, label=np.arange(4000) % 3)
    wholes, seconds, count = {}, {}, {}
    for name, (first, _) in commands(raw).items():
        for again in ("warms the cache", "is timed"):
            wholes[name] = folder / f"{name} {again}"
            start = time.monotonic()
            assert faults.finished([*first, wholes[name]]).code == 0
            seconds[name] = time.monotonic() - start
    for number in range(moments):
        name = list(wholes)[number % len(wholes)]
        first, again = commands(raw)[name]
        out, after = folder / str(number), draw.uniform(0.2, 1) * seconds[name]
        until = time.monotonic() + after
        killed = faults.ended(
            [*first, out], signal.SIGKILL, lambda until=until: time.monotonic() > until
        )
        there = faults.files_of(out) if out.exists() else []
        began = name != "train" or (out / "config.json").exists()
        time.sleep(1)  # its workers end
        done = faults.finished([*(again if began else first), out])
        good = done.code == 0 and equal(name, out, wholes[name])
        count.setdefault((name, killed.code, good), []).append(number)
        last = (done.code, done.err.splitlines()[-1:]) if not good else ""
        print(f"{number} {name} after {after:.1f} s, {len(there)} files: {good} {last}")
        sys.stdout.flush()
    print({key: len(numbers) for key, numbers in count.items()})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
