"""What combining K gradients costs, in units of one copy of them.

    python tests/benchmarks/combination.py [--repeats 9]

The tree is that of a ResNet-18: 11 M parameters in 62 leaves. A copy reads the stacked
gradients and writes them; the Gramians need one read, the whole update two reads and
the write of one gradient. The parts are timed in turn, so that other load on the
machine falls on all of them alike.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

import mmpareto_jax as mmp
from mmpareto_jax._gramians.gramian import group_gramians


def resnet_shapes():
    """Of a ResNet-18 with its classifier: name -> shape."""
    shapes = {"stem": (7, 7, 3, 64)}
    shapes |= {f"stem_bn{i}": (64,) for i in range(2)}
    width = 64
    for stage, new in enumerate((64, 128, 256, 512)):
        for block in range(2):
            name = f"stage{stage}_{block}"
            shapes[f"{name}_conv1"] = (3, 3, width, new)
            shapes[f"{name}_conv2"] = (3, 3, new, new)
            shapes |= {f"{name}_bn{i}": (new,) for i in range(4)}
            if width != new:
                shapes[f"{name}_shortcut"] = (1, 1, width, new)
                shapes |= {f"{name}_shortcut_bn{i}": (new,) for i in range(2)}
            width = new
    return shapes | {"head": (512, 1000), "head_bias": (1000,)}


def parts(num):
    """Name -> (compiled function, its argument)."""
    shapes = resnet_shapes()
    keys = jax.random.split(jax.random.key(0), len(shapes))
    grads = {
        name: jax.random.normal(key, (num, *shape))
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    # Alternating signs along one common part: every step is a conflict.
    signs = jnp.where(jnp.arange(num) % 2, -1.0, 1.0)
    grads = {
        name: x + signs.reshape(-1, *[1] * (x.ndim - 1)) for name, x in grads.items()
    }
    tx = mmp.mmpareto(num)
    state = tx.init(jax.tree.map(lambda x: x[0], grads))
    gram = mmp.gramian(grads)
    size = sum(x.size for x in grads.values()) // num
    functions = {
        # An addition: XLA would return the argument itself.
        "copy": (lambda g: jax.tree.map(lambda x: x + 1, g), grads),
        "Gramians": (lambda g: group_gramians([list(g.values())])[0].total, grads),
        "update": (lambda g: tx.update(g, state), grads),
        "min-norm": (mmp.min_norm_weights, gram),
    }
    return size, {
        name: (jax.jit(f).lower(x).compile(), x) for name, (f, x) in functions.items()
    }


def measure(functions, repeats):
    """Median seconds of each, all taken in turn."""
    times = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, (function, argument) in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(argument))
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(x[1:]) for name, x in times.items()}


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    header = ("K", "copy GB/s", "Gramians / copy", "update / copy", "min-norm / update")
    print("  ".join(header))
    for num in (2, 3, 8):
        size, functions = parts(num)
        found = measure(functions, repeats)
        row = (
            f"{num}",
            f"{2 * 4 * num * size / found['copy'] / 1e9:.1f}",
            f"{found['Gramians'] / found['copy']:.2f}",
            f"{found['update'] / found['copy']:.2f}",
            f"{found['min-norm'] / found['update']:.4f}",
        )
        print("  ".join(x.ljust(len(h)) for x, h in zip(row, header, strict=True)))


if __name__ == "__main__":
    main()
