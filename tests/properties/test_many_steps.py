"""Many steps in one compiled scan: states do not drift, and nothing poisons them.

HYPOTHESIS_PROFILE=long makes a million of each.
"""

import functools
from typing import NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import optax
import pytest
from promises import METHODS

import mmpareto_jax as mmp

NUM, SIZE = 3, 6
LONG = hypothesis.settings().max_examples > 1000
STEPS = 1_000_000 if LONG else 20_000
EPS = float(jnp.finfo(jnp.float32).eps)
GAMMA = optax.linear_schedule(1.0, 2.0, STEPS)
W = mmp.weightings


def on_simplex(state):
    weights = state.simplex
    return (weights >= 0).all() & (jnp.abs(weights.sum() - 1) < 8 * EPS)


def trained(state):
    weights = state.learned.value
    return (weights > 0).all() & (jnp.abs(weights.sum() - NUM) < 1e-3)


def cosines(state):
    return (jnp.abs(state.cosines) <= 1 + 8 * EPS).all()


def nothing(state):
    return jnp.array(True)


class Run(NamedTuple):
    """A rule with a state, and what is true of that at every step."""

    rule: object
    holds: object = nothing


RUNS = {
    "mmpareto": Run(W.mmpareto(GAMMA)),
    "smoothed": Run(W.smoothed(W.mmpareto(max_magnitude=3.0))),
    "gradvac": Run(W.gradvac(), cosines),
    "modo": Run(W.modo(), on_simplex),
    "sdmgrad": Run(W.sdmgrad(), on_simplex),
    "gradnorm": Run(W.gradnorm(), trained),
} | {
    name: Run(METHODS[name].rule)
    for name in (
        "nash_mtl",
        "db_mtl",
        "metabalance",
        "uncertainty",
        "dwa",
        "famo",
        "imtl_l",
        "graddrop",
        "pcgrad",
        "random",
        "rlw",
    )
}


class Counts(NamedTuple):
    """Steps of each kind, and those at which something is not as it must be."""

    bad: jax.Array  # a gradient or a loss was not finite
    conflicts: jax.Array
    lost: jax.Array  # the inputs were finite, the update was not
    hidden: jax.Array  # a gradient was not finite, and the update was
    poisoned: jax.Array  # the state is not finite
    kept: jax.Array  # a bad step has changed the state
    broken: jax.Array  # what holds for the state does not
    ascending: jax.Array  # mmpareto: an objective would rise
    unlike: jax.Array  # mmpareto: the magnitude is not γ |Σ g|


def batch(key):
    """Gradients [K, P] and losses [K] of changing scales, and whether all is finite."""
    keys = jax.random.split(key, 8)
    rows = jax.random.normal(keys[0], (NUM, SIZE))
    rows -= 0.6 * rows.mean(0, keepdims=True)
    common = jax.random.uniform(keys[1], (), minval=-12.0, maxval=12.0)
    own = jax.random.uniform(keys[2], (NUM, 1), minval=-12.0, maxval=12.0)
    own *= jax.random.bernoulli(keys[3], 0.3)
    rows *= 10.0 ** (common + own)
    # Of a hundred rows five are zero, four denormal; of a hundred batches six are bad.
    kind = jax.random.uniform(keys[4], (NUM, 1))
    rows = jnp.where(kind < 0.05, 0.0, jnp.where(kind > 0.96, 1e-40, rows))
    broken = jax.random.uniform(keys[5], (2,))
    value = jnp.where(broken[0] < 0.02, jnp.nan, jnp.inf)
    rows = rows.at[1, 2].set(jnp.where(broken[0] < 0.04, value, rows[1, 2]))
    losses = jnp.exp(3 * jax.random.normal(keys[6], (NUM,)))
    losses *= jax.random.uniform(keys[7], (NUM,)) > 0.05
    losses = losses.at[0].set(jnp.where(broken[1] < 0.02, jnp.nan, losses[0]))
    return rows, losses


def is_finite(tree):
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(x).all() for x in leaves]).all()


def is_same(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return jnp.array([(a == b).all() for a, b in pairs]).all()


def reads(rule):
    """Whether it looks at the gradients' numbers, and at the losses."""
    gradients = not isinstance(rule, mmp.LossWeighting)
    return gradients, not gradients or "losses" in rule.extras


def descends(gamma, rows, found):
    """Whether an update of MMPareto descends, and has the magnitude that it is to have.

    In units of its reach, in which no square is out of range.
    """
    peaks = jnp.maximum(jnp.max(jnp.abs(rows), axis=1, keepdims=True), 1e-37)
    unit = rows / peaks
    lengths = peaks[:, 0] * jnp.linalg.norm(unit, axis=1)
    weights, scales = found.weights["all"].group, found.gramians["all"].rows
    reach = jnp.sum(jnp.abs(weights) * (lengths / scales))
    size = jnp.maximum(reach, 1e-30)
    update, total = found.updates / size, gamma * jnp.sum(rows / size, axis=0)
    terms = 1 + (gamma * jnp.sum(lengths / size)) ** 2
    alike = jnp.abs(update @ update - total @ total) <= 64 * EPS * terms
    fails = jnp.min(unit @ update) < -64 * EPS
    there = (reach > 1e-30) & is_finite(rows)
    return ~(there & fails), ~there | alike


@functools.cache
def program(name):
    rule, holds = RUNS[name]
    tx = mmp.aggregate(rule, NUM)
    of_gradients, of_losses = reads(rule)

    def step(carry, key):
        state, counts = carry
        rows, losses = batch(key)
        found = tx.combine_rows(rows, state, losses=losses)
        update, after, before = found.updates, found.state.weighting, state.weighting
        fine_rows, fine_losses = is_finite(rows), is_finite(losses)
        fine = fine_rows & (fine_losses | (not of_losses))
        read = (fine_rows | (not of_gradients)) & (fine_losses | (not of_losses))
        does = jnp.array(True), jnp.array(True)
        if name == "mmpareto":
            does = descends(GAMMA(before["all"].step), rows, found)
        event = Counts(
            ~fine,
            mmp.diagnostics(found.state)["all"]["conflict"],
            fine & ~is_finite(update),
            ~fine_rows & (losses != 0).all() & is_finite(update),
            ~is_finite(after),
            ~read & ~is_same(after, before),
            ~holds(after.get("all") if isinstance(after, dict) else after),
            ~does[0],
            ~does[1],
        )
        counts = jax.tree.map(lambda a, b: a + b.astype(jnp.int32), counts, event)
        return (found.state, counts), None

    @jax.jit
    def run(keys):
        zeros = Counts(*[jnp.zeros((), jnp.int32)] * len(Counts._fields))
        return jax.lax.scan(step, (tx.init(jnp.zeros(SIZE)), zeros), keys)[0][1]

    return run


@pytest.mark.parametrize("name", RUNS)
def test_nothing_drifts(name):
    keys = jax.random.split(jax.random.key(0), STEPS)
    counts = program(name)(keys)
    counts = {field: int(x) for field, x in counts._asdict().items()}
    if LONG:
        print(name, counts)
    bad, conflicts = counts.pop("bad"), counts.pop("conflicts")
    assert bad > 0.01 * STEPS
    assert conflicts > 0.3 * STEPS
    assert not any(counts.values()), counts
