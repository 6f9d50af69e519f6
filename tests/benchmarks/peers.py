"""A training step with each rule, here and in TorchJD, on the same network and data.

    pip install -e . "torchjd[full]" && python tests/benchmarks/peers.py

A trunk of six layers and a head for each task, float32, plain SGD: forward, the tasks'
gradients, their combination, the update. TorchJD has four ways to do this
(differentiation in parallel or not, its Gramian at once or by tensor); the fastest of
them counts. All are timed in turn within one run, so that other load falls on all
alike. The combined gradients are compared before anything is timed.
"""

import argparse
import importlib.metadata
import itertools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn
from torchjd import aggregation
from torchjd.autojac import jac_to_grad, mtl_backward

import mmpareto_jax as mmp

LAYERS, INPUTS, CLASSES = 6, 64, 10
RATE = 1e-3
RULES = {
    "mean": (aggregation.Mean, mmp.weightings.mean),
    "mgda": (aggregation.MGDA, mmp.weightings.mgda),
    "pcgrad": (aggregation.PCGrad, mmp.weightings.pcgrad),
    "upgrad": (aggregation.UPGrad, lambda: mmp.weightings.upgrad(reg_eps=1e-4)),
    "dualproj": (aggregation.DualProj, lambda: mmp.weightings.dualproj(reg_eps=1e-4)),
    "cagrad": (lambda: aggregation.CAGrad(0.5), lambda: mmp.weightings.cagrad(0.5)),
    "imtl_g": (aggregation.IMTLG, mmp.weightings.imtl_g),
    "aligned_mtl": (aggregation.AlignedMTL, mmp.weightings.aligned_mtl),
    "config": (aggregation.ConFIG, mmp.weightings.config),
}
# MGDA's 100 Frank-Wolfe steps, CAGrad's solver and PCGrad's order are approximate or
# random there: these are not compared.
SAME = ("mean", "upgrad", "dualproj", "imtl_g", "aligned_mtl", "config")


def numbers(tasks, width, batch):
    """Parameters and one batch, for both."""
    rng = np.random.default_rng(0)
    sizes = [INPUTS, *[width] * LAYERS]
    trunk = [
        rng.normal(0, (2 / a) ** 0.5, (a, b)).astype(np.float32)
        for a, b in itertools.pairwise(sizes)
    ]
    scale = width**-0.5
    heads = rng.normal(0, scale, (tasks, width, CLASSES)).astype(np.float32)
    x = rng.normal(size=(batch, INPUTS)).astype(np.float32)
    return trunk, heads, x, rng.integers(0, CLASSES, (tasks, batch))


def here(tasks, *sizes):
    """Name -> a function that takes a step, and the first combined gradient."""
    trunk, heads, x, labels = (
        jax.tree.map(jnp.asarray, a) for a in numbers(tasks, *sizes)
    )
    names = [f"task{k}" for k in range(tasks)]
    params = {"trunk": trunk, "heads": dict(zip(names, heads, strict=True))}

    def losses_fn(params):
        z = x
        for weight in params["trunk"]:
            z = jax.nn.relu(z @ weight)
        logits = {k: z @ params["heads"][k] for k in names}
        loss = optax.softmax_cross_entropy_with_integer_labels
        return {
            k: loss(logits[k], y).mean() for k, y in zip(names, labels, strict=True)
        }

    groups = mmp.objective_groups(losses_fn, params)
    plain = mmp.aggregate(mmp.weightings.uniform(), ("sum",))

    def total(params):
        return sum(losses_fn(params).values())

    def stacked_sum(params):
        return jax.tree.map(lambda g: g[None], jax.grad(total)(params))

    def stacked(params):
        return mmp.value_and_objective_grads(losses_fn, groups)(params)[1]

    def make(grad_fn, combine):
        tx = optax.chain(combine, optax.sgd(RATE))

        @jax.jit
        def step(params, state):
            updates, state = tx.update(grad_fn(params), state, params)
            return optax.apply_updates(params, updates), state, updates["trunk"]

        now = [params, tx.init(params)]
        first = step(*now)[2]
        first = np.concatenate([np.ravel(u) for u in first]) / -RATE

        def go():
            *now[:], update = step(*now)
            jax.block_until_ready(update)

        return go, first

    steps = {"plain sum": make(stacked_sum, plain)}
    for name, (_, weighting) in RULES.items():
        steps[name] = make(stacked, mmp.aggregate(weighting(), groups))
    return steps


def there(tasks, *sizes):
    """Name -> functions that take a step, and the first combined gradient."""
    trunk, heads, x, labels = numbers(tasks, *sizes)
    x, labels = torch.from_numpy(x), torch.from_numpy(labels)

    def linear(weight):
        layer = nn.Linear(*weight.shape, bias=False)
        layer.weight.data = torch.from_numpy(weight.T.copy())
        return layer

    def make(aggregator, **options):
        layers = [[linear(weight), nn.ReLU()] for weight in trunk]
        body = nn.Sequential(*itertools.chain(*layers))
        tops = nn.ModuleList(linear(weight) for weight in heads)
        shared = list(body.parameters())
        optimiser = torch.optim.SGD([*shared, *tops.parameters()], lr=RATE)
        chunk = options.pop("chunk", None)

        def go():
            optimiser.zero_grad()
            features = body(x)
            losses = [
                nn.functional.cross_entropy(top(features), y)
                for top, y in zip(tops, labels, strict=True)
            ]
            if aggregator is None:
                sum(losses).backward()
            else:
                mtl_backward(losses, features=features, parallel_chunk_size=chunk)
                jac_to_grad(shared, aggregator, **options)
            optimiser.step()

        go()
        first = np.concatenate([np.ravel(p.grad.numpy().T) for p in shared])
        return go, first

    steps = {"plain sum": [make(None)]}
    for name, (rule, _) in RULES.items():
        ways = [{"chunk": 1}, {"chunk": None}]
        if isinstance(rule(), aggregation.GramianWeightedAggregator):
            ways += [w | {"optimize_gramian_computation": True} for w in ways]
        steps[name] = [make(rule(), **way) for way in ways]
    return steps


def main():
    """Compares, times and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    sizes = args.tasks, args.width, args.batch
    ours, theirs = here(*sizes), there(*sizes)
    for name in ("plain sum", *SAME):
        a, b = ours[name][1], theirs[name][0][1]
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert error < 1e-2, (name, error)
    runs = {("here", name): go for name, (go, _) in ours.items()}
    for name, ways in theirs.items():
        runs |= {(f"there {i}", name): go for i, (go, _) in enumerate(ways)}
    times = {key: [] for key in runs}
    for _ in range(args.repeats):
        for key, go in runs.items():
            start = time.perf_counter()
            go()
            times[key].append(time.perf_counter() - start)
    middle = {key: 1e3 * statistics.median(found[2:]) for key, found in times.items()}

    versions = ", ".join(
        f"{x} {importlib.metadata.version(x)}" for x in ("jax", "torch", "torchjd")
    )
    print(
        f"{jax.devices()[0].device_kind}, {torch.get_num_threads()} threads, {versions}"
    )
    print("K = {}, width {}, batch {}".format(*sizes))
    print("| step | here, ms | TorchJD, ms | TorchJD / here |")
    print("|---|---|---|---|")
    for name in ours:
        other = min(
            value
            for (where, which), value in middle.items()
            if which == name and where != "here"
        )
        mine = middle["here", name]
        print(f"| {name} | {mine:.2f} | {other:.2f} | {other / mine:.2f} |")


if __name__ == "__main__":
    main()
