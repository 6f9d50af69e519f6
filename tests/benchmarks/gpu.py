"""What the combination, the rules and whole steps cost on an accelerator, as Markdown.

    python tests/benchmarks/gpu.py [--budget 480] [--small]

"Fraction" is the bytes that must move (K·P for the Gramians, (2K + 1)·P for an update)
over the time and over the bandwidth of a copy that is measured beside them. Parts are
begun as long as the budget (seconds) lasts, in the order of the page; ``--small`` runs
all of them at sizes for a CPU, to see that they work. With PyTorch and TorchJD
installed, TorchJD's MGDA combines the same matrix.
"""

import argparse
import functools
import importlib.util
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from combination import resnet_shapes
from together import HEAD
from together import rows as runs_together

import mmpareto_jax as mmp
from mmpareto_jax._gramians.gramian import group_gramians

RULES = (
    *("mean", "mmpareto", "mgda", "dualproj", "upgrad", "pcgrad", "imtl_g"),
    *("aligned_mtl", "config", "cagrad", "nash_mtl", "fairgrad", "sdmgrad"),
)


def seconds(function, *args, repeats=10):
    """Median of a call, after one that is not counted."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compiled(function, *args, **options):
    """The program, and the seconds that it took to compile."""
    lowered = jax.jit(function, **options).lower(*args)
    start = time.perf_counter()
    program = lowered.compile()
    return program, time.perf_counter() - start


def table(title, head, rows):
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(x) for x in row)} |", flush=True)


# --- The combination


def transformer_shapes(depth, width):
    """Per layer: four projections, an MLP, their biases and two norms."""
    layer = {"qkv": (width, 3 * width), "out": (width, width)}
    layer |= {"up": (width, 4 * width), "down": (4 * width, width)}
    layer |= {"qkv_b": (3 * width,), "out_b": (width,), "up_b": (4 * width,)}
    layer |= {"down_b": (width,)} | {f"norm{i}": (width,) for i in range(4)}
    return {f"{i}/{k}": s for i in range(depth) for k, s in layer.items()}


def trees(small):
    """Name -> shapes, dtype, numbers of objectives."""
    if small:
        return {"small": (transformer_shapes(2, 32), jnp.float32, (2, 3, 8))}
    base, large = transformer_shapes(12, 768), transformer_shapes(24, 2048)
    return {
        "11 M, ResNet-18": (resnet_shapes(), jnp.float32, (2, 3)),
        "85 M, 12 × 768": (base, jnp.float32, (2, 3, 8)),
        "1.2 B, 24 × 2,048": (large, jnp.float32, (2,)),
        "1.2 B, bfloat16": (large, jnp.bfloat16, (2, 3)),
    }


def combination(shapes, dtype, num):
    """The row of one tree: GB/s of a copy, then fractions, milliseconds, compile."""

    @jax.jit
    def fill():
        parts = enumerate(shapes.items())
        return {
            k: jax.random.normal(jax.random.key(i), (num, *s), dtype)
            for i, (k, s) in parts
        }

    grads = fill()
    size = sum(x.nbytes for x in grads.values())
    tx = mmp.mmpareto(num)
    state = tx.init(jax.eval_shape(lambda g: {k: x[0] for k, x in g.items()}, grads))
    copy, _ = compiled(lambda g: jax.tree.map(lambda x: -x, g), grads)
    bandwidth = 2 * size / seconds(copy, grads)
    gramian, _ = compiled(lambda g: group_gramians([list(g.values())])[0].total, grads)
    update, took = compiled(tx.update, grads, state)
    found = [f"{bandwidth / 1e9:.0f}"]
    for program, args, factor in (
        (gramian, (grads,), 1),
        (update, (grads, state), 2 + 1 / num),
    ):
        spent = seconds(program, *args)
        found += [f"{factor * size / spent / bandwidth:.2f}", f"{1e3 * spent:.2f}"]
    return [*found, f"{took:.1f}", torchjd(grads, num)]


def torchjd(grads, num):
    """Milliseconds of TorchJD's MGDA on the same matrix, where it is installed."""
    if not all(importlib.util.find_spec(x) for x in ("torch", "torchjd")):
        return "–"
    import torch
    from torchjd.aggregation import MGDA

    place = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [np.asarray(x, np.float32).reshape(num, -1) for x in grads.values()]
    matrix = torch.tensor(np.concatenate(rows, 1), device=place)
    rule, times = MGDA(), []
    for _ in range(6):
        start = time.perf_counter()
        rule(matrix).sum().item()
        times.append(time.perf_counter() - start)
    return f"{1e3 * statistics.median(times[1:]):.2f}"


# --- The rules


def rules(num):
    """Rule -> microseconds of the update of one small leaf."""
    grads = {"w": jax.random.normal(jax.random.key(0), (num, 64))}
    params, losses = {"w": grads["w"][0]}, jnp.ones(num)
    found = {}
    for name in RULES:
        tx = mmp.aggregate(getattr(mmp.weightings, name)(), num)
        state = tx.init(params)
        program, _ = compiled(
            lambda g, s, tx=tx: tx.update(g, s, losses=losses), grads, state
        )
        found[name] = 1e6 * seconds(program, grads, state, repeats=50)
    return found


# --- Whole steps


def audio_visual(small, dtype):
    """Two ResNet-18 on a spectrogram and an image, three losses."""
    from flax import nnx

    from mmpareto_jax.models import MultimodalClassifier, ResNet18

    batch, sound, image = (2, (32, 32), 32) if small else (64, (257, 188), 224)
    rngs = nnx.Rngs(0)
    model = MultimodalClassifier(
        6,
        {k: ResNet18(c, dtype=dtype, rngs=rngs) for k, c in (("a", 1), ("v", 3))},
        rngs=rngs,
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    inputs = {
        "a": jnp.ones((batch, *sound, 1)),
        "v": jnp.ones((batch, image, image, 3)),
    }
    labels = jnp.arange(batch) % 6

    def losses_fn(params, inputs):
        # Its own copy: the statistics of BatchNorm are written, and forgotten here.
        own = jax.tree.map(lambda x: x, rest)
        outputs = nnx.merge(graph, params, own).outputs(inputs)
        each = optax.softmax_cross_entropy_with_integer_labels
        return {k: each(x, labels).mean() for k, x in outputs.logits.items()}

    return losses_fn, params, inputs


def transformer(small, num=2):
    """A trunk of unrolled layers, a head of each objective: ViT-B's sizes, bfloat16."""
    depth, width, batch, tokens = (2, 32, 2, 8) if small else (12, 768, 64, 197)
    shapes = transformer_shapes(depth, width)
    params = {
        k: 0.02 * jax.random.normal(jax.random.key(i), s, jnp.bfloat16)
        for i, (k, s) in enumerate(shapes.items())
    }
    params["heads"] = [jnp.ones((width, 8), jnp.bfloat16) / width for _ in range(num)]

    def norm(x, scale, shift):
        x = x - x.mean(-1, keepdims=True)
        return (
            x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + scale)
            + shift
        )

    def losses_fn(params, x):
        for i in range(depth):
            p = {
                k: params[f"{i}/{k}"]
                for k in transformer_shapes(1, width)
                for k in [k[2:]]
            }
            y = norm(x, p["norm0"], p["norm1"]) @ p["qkv"] + p["qkv_b"]
            q, k, v = jnp.split(y.reshape(*y.shape[:2], -1, 3 * 32), 3, -1)
            y = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
            x = x + y @ p["out"] + p["out_b"]
            y = jax.nn.gelu(norm(x, p["norm2"], p["norm3"]) @ p["up"] + p["up_b"])
            x = x + y @ p["down"] + p["down_b"]
        pooled = x.mean(1)
        return {
            str(k): jnp.mean((pooled @ w).astype(jnp.float32) ** 2)
            for k, w in enumerate(params["heads"])
        }

    return losses_fn, params, jnp.ones((batch, tokens, width), jnp.bfloat16)


def steps(losses_fn, params, inputs):
    """Way -> milliseconds, compile seconds, relative to the plain sum's."""
    tx = optax.sgd(0.01)

    def plain(state, params, inputs):
        total = jax.grad(lambda p: sum(losses_fn(p, inputs).values()))(params)
        return total, state

    def combined(rule, **options):
        step = mmp.combined_grads(losses_fn, rule, **options)
        state = step.init(params, inputs)
        return state, lambda *args: [step.value_and_grads(*args)[i] for i in (0, 1)]

    silent = functools.partial(
        mmp.aggregate, mmp.weightings.uniform(), diagnostics=False
    )
    ways = {
        "plain sum": ((), plain),
        "uniform, known weights": combined(silent),
        "MMPareto, unroll": combined(mmp.mmpareto),
        "MMPareto, vmap": combined(mmp.mmpareto, pullback="vmap"),
        "MMPareto, keep='gramian'": combined(mmp.mmpareto, keep="gramian"),
    }
    # A step that finds weights, and one of the nine between.
    state, kept = combined(mmp.mmpareto, every=10)
    ways["MMPareto, every=10, refresh"] = state, kept
    ways["MMPareto, every=10, between"] = state._replace(age=jnp.int32(1)), kept
    rows, base = [], None
    for name, (state, direction) in ways.items():

        def step(params, state, inputs, direction=direction):
            found, state = direction(state, params, inputs)
            grads = found[1] if isinstance(found, tuple) else found
            updates, _ = tx.update(grads, tx.init(params))
            return optax.apply_updates(params, updates), state

        program, took = compiled(step, params, state, inputs)
        spent = seconds(program, params, state, inputs)
        memory = program.memory_analysis().temp_size_in_bytes / 1e9
        base = base or (spent, took)
        ratios = f"{spent / base[0]:.2f}", f"{took / base[1]:.1f}"
        rows.append(
            (
                name,
                f"{1e3 * spent:.1f}",
                ratios[0],
                f"{took:.1f}",
                ratios[1],
                f"{memory:.2f}",
            )
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=480)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    end = time.monotonic() + given.budget
    device = jax.devices()[0]
    print(
        f"{device.device_kind}, jax {jax.__version__}, mmpareto_jax {mmp.__version__}"
    )

    def combinations():
        head = ["tree", "K", "copy GB/s", "Gramian", "ms", "update", "ms", "compile s"]
        rows = [
            (name, num, *combination(shapes, dtype, num))
            for name, (shapes, dtype, nums) in trees(given.small).items()
            for num in nums
            if time.monotonic() < end
        ]
        table("Combination", [*head, "TorchJD MGDA ms"], rows)

    def all_rules():
        found = {num: rules(num) for num in (3, 8)}
        rows = [
            (name, *(f"{found[n][name] - found[n]['mean']:.0f}" for n in found))
            for name in RULES
        ]
        table("Rules, µs above the mean", ["rule", "K = 3", "K = 8"], rows)

    def whole(title, make):
        head = ["way", "ms", "/ plain", "compile s", "/ plain", "temporaries GB"]
        table(title, head, steps(*make()))

    def runs_side_by_side():
        numbers = (2,) if given.small else (4, 16)
        table("Runs side by side", HEAD, runs_together(numbers, given.small))

    parts = [
        combinations,
        all_rules,
        lambda: whole("Two ResNet-18", lambda: audio_visual(given.small, jnp.float32)),
        lambda: whole("ViT-B trunk, K = 2", lambda: transformer(given.small)),
        lambda: whole("ViT-B trunk, K = 8", lambda: transformer(given.small, 8)),
        lambda: whole(
            "The same, bf16", lambda: audio_visual(given.small, jnp.bfloat16)
        ),
        runs_side_by_side,
    ]
    for part in parts:
        if time.monotonic() >= end:
            print("\nThe budget is spent.", file=sys.stderr)
            break
        part()


if __name__ == "__main__":
    main()
