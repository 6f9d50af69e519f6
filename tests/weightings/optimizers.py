"""What an optimiser after a rule leaves of its promises, as data and as counts.

``PYTHONPATH=tests/weightings python tests/weightings/optimizers.py`` prints the tables
of the page about the probe.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from promises import METHODS
from test_promises import LOSSES, K, P, aggregated, conflicting, normal

SHAPE = (2, 5)  # of the parameter: Muon is for matrices
STEPS = 3


class Optimizer(NamedTuple):
    """What comes after a rule, and what it leaves of what the rule promises."""

    tx: optax.GradientTransformation
    descends: Literal["✓", "in the first step", "–"]  # <g_k, u> <= 0 for all k
    linear: bool  # u is linear in the lengths of the gradients
    factor: Literal["×c", "cancels"]  # what c times all gradients, or γ, do to u
    symmetric: bool = True  # u does not depend on the objectives' order


# The parameters are zero, so that decay is not what breaks a promise.
OPTIMIZERS = {
    "SGD": Optimizer(optax.sgd(0.1), "✓", True, "×c"),
    "momentum": Optimizer(
        optax.sgd(0.1, momentum=0.9), "in the first step", True, "×c"
    ),
    "AdamW": Optimizer(optax.adamw(0.1), "–", False, "cancels"),
    "Muon": Optimizer(optax.contrib.muon(0.1), "–", False, "cancels"),
}


def sequences(name):
    """Gradients [N, STEPS, K, P], for a rule: of half of them every pair conflicts."""
    return _sequences()[:, :, : METHODS[name].num]


@functools.cache
def _sequences():
    rng = np.random.default_rng(2)
    each = [
        [family(rng) for _ in range(STEPS)]
        for family in (normal, conflicting)
        for _ in range(20)
    ]
    assert np.shape(each)[2:] == (K, P)
    return np.array(each)


def directions(name, grads, losses=LOSSES):
    """[N, STEPS, P], of a rule that is in its first state at every step."""
    whole = aggregated(name, grads.reshape(-1, *grads.shape[2:]), losses)
    return whole.reshape(*grads.shape[:2], P)


@functools.cache
def _applied(name):
    tx = OPTIMIZERS[name].tx
    params = jnp.zeros(SHAPE)

    @jax.jit
    @jax.vmap
    def run(directions):
        def step(state, direction):
            update, state = tx.update(direction.reshape(SHAPE), state, params)
            return state, update.ravel()

        return jax.lax.scan(step, tx.init(params), directions)[1]

    return run


def applied(name, directions):
    """The updates [N, STEPS, P] that an optimiser makes of directions."""
    with jax.enable_x64(True):
        return np.asarray(_applied(name)(jnp.asarray(directions)))


def raises(grads, updates):
    """[N, STEPS]: whether an update raises an objective, beyond rounding."""
    inner = np.einsum("ntkp,ntp->ntk", grads, updates)
    size = np.linalg.norm(grads, axis=-1) * np.linalg.norm(updates, axis=-1)[..., None]
    return np.any(inner > 1e-7 * size, axis=-1)


def shares(name):
    """Optimiser -> the share of the last updates that raise an objective."""
    grads = sequences(name)
    found = directions(name, grads)
    return {
        optimizer: raises(grads, applied(optimizer, found))[:, -1].mean()
        for optimizer in OPTIMIZERS
    }


def promises_table():
    """A line for each promise."""

    def line(title, cells):
        return f"| {title} | {' | '.join(cells)} |"

    every = OPTIMIZERS.values()
    return "\n".join(
        [
            line("what the rule promises", OPTIMIZERS),
            "|---|" + ":-:|" * len(OPTIMIZERS),
            line("never ascends", [x.descends for x in every]),
            line("linear in each length", ["✓" if x.linear else "–" for x in every]),
            line("c times all gradients, or γ", [x.factor for x in every]),
            line("any order", ["✓" if x.symmetric else "–" for x in every]),
        ]
    )


def shares_table():
    """A line for each rule."""
    lines = [
        f"| `mmp.weightings.` | never ascends | {' | '.join(OPTIMIZERS)} |",
        "|---|:-:|" + "--:|" * len(OPTIMIZERS),
    ]
    for name, method in METHODS.items():
        cells = " | ".join(f"{100 * x:.0f} %" for x in shares(name).values())
        lines.append(f"| `{name}` | {'✓' if method.descends else ''} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(promises_table(), shares_table(), sep="\n\n")
