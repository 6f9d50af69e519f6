"""Every method keeps what `promises.py` says, on gradients of every kind."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import promises
import pytest

import mmpareto_jax as mmp

K, P = 4, 10
METHODS = promises.METHODS
LOSSES = np.array([0.5, 1.0, 2.0, 4.0])
README = pathlib.Path(__file__).parents[2] / "README.md"
LOSS_WEIGHTINGS = {
    name for name, m in METHODS.items() if isinstance(m.rule, mmp.LossWeighting)
}


def normal(rng):
    return rng.normal(size=(K, P)) * rng.uniform(0.3, 3, size=(K, 1))


def strong_stationary(rng):
    """A combination with positive weights is zero, and no other."""
    rows = normal(rng)
    rows[-1] = -rng.uniform(0.3, 1, K - 1) @ rows[:-1]
    return rows


def strictly_weak_stationary(rng):
    """Two gradients are opposite; the others are not in the combination."""
    rows = normal(rng)
    rows[1] = -0.5 * rows[0]
    return rows


def low_rank(rng):
    """Dependent gradients that have a common descent direction."""
    rows = rng.normal(size=(K, 2)) @ rng.normal(size=(2, P))
    return rows * np.sign(rows @ rows[0])[:, None]


def conflicting(rng):
    """Every pair conflicts, and a common descent direction exists."""
    rows = normal(rng)
    rows -= 0.9 * rows.mean(0)
    return rows


def zero(_):
    return np.zeros((K, P))


FAMILIES = (
    normal,
    conflicting,
    strong_stationary,
    strictly_weak_stationary,
    low_rank,
    zero,
)
REPEATS = 4
ORDER = np.array([2, 1, 3, 0])


def order_of(name):
    """Another order of a rule's objectives."""
    return ORDER[np.isin(ORDER, range(METHODS[name].num))]


def inputs(name):
    rng = np.random.default_rng(0)
    rows = np.stack([family(rng) for family in FAMILIES for _ in range(REPEATS)])
    return rows[:, : METHODS[name].num]


FULL_RANK = slice(0, 2 * REPEATS)  # normal and conflicting


@functools.cache
def update(name, dtype):
    """Stacked gradients [N, K, P], losses [N, K] to updates [N, P]; compiled once."""
    tx = mmp.aggregate(METHODS[name].rule, METHODS[name].num)
    state = tx.init(jnp.zeros(P, dtype))

    @jax.jit
    @jax.vmap
    def run(grads, losses):
        return tx.update(grads, state, losses=losses)[0]

    return run


def aggregated(name, grads, losses=LOSSES, dtype="float64"):
    """The update for each of a batch [N, K, P], as float64."""
    losses = np.asarray(losses)[: grads.shape[1]]
    losses = jnp.broadcast_to(jnp.asarray(losses, dtype), grads.shape[:2])
    with jax.enable_x64(dtype == "float64"):
        found = update(name, dtype)(jnp.asarray(grads, dtype), losses)
    return np.asarray(found, np.float64)


def norms(x):
    return np.linalg.norm(x, axis=-1)


def differ(a, b, grads, tol=1e-6):
    """[N]: whether a and b differ, relative to them and to the noise floor."""
    size = np.maximum(norms(a), norms(b)) + 1e-7 * norms(grads).max(1)
    return norms(a - b) > tol * size


NAMES = list(METHODS)
pytestmark = pytest.mark.usefixtures("x64")


def test_every_method_is_here():
    public = {
        name for name in vars(mmp.weightings) if name.islower() and name[0] != "_"
    }
    # Around another rule, of whose promises a mean keeps none.
    assert set(METHODS) == public - {"smoothed"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_update_is_finite(name, dtype):
    """Also from zero to 1e15, and for one gradient 1e8 times longer than the others."""
    grads = inputs(name)
    unequal = grads * np.array([1.0, 1e8, 1.0, 1e-4])[: grads.shape[1], None]
    scaled = [grads * c for c in (1, 1e-15, 1e-6, 1e6, 1e15)]
    every = np.concatenate([*scaled, unequal])
    found = aggregated(name, every, dtype=dtype)
    assert np.isfinite(found).all()
    silent = ~every.any((1, 2))
    assert not found[silent].any()


@pytest.mark.parametrize("name", NAMES)
def test_never_ascends(name):
    grads = inputs(name)
    found = aggregated(name, grads)
    inner = np.einsum("nkp,np->nk", grads, found)
    # At a stationary point the direction may be rounding error of the gradients.
    size = 1e-7 * norms(found) + 1e-14 * norms(grads).max(1)
    ascends = np.any(inner < -norms(grads) * size[:, None], axis=1)
    assert np.any(ascends) != METHODS[name].descends


@pytest.mark.parametrize("name", NAMES)
def test_linear_in_each_length(name):
    """d(αa ∘ J + βb ∘ J) = α d(a ∘ J) + β d(b ∘ J), row by row."""
    grads = inputs(name)
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.2, 3, size=(2, *grads.shape[:2], 1))
    parts = [aggregated(name, grads * x) for x in (a, b, 2 * a + 0.5 * b)]
    broken = differ(2 * parts[0] + 0.5 * parts[1], parts[2], grads, 1e-5)
    assert np.any(broken[FULL_RANK]) != METHODS[name].linear


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scale_equivariant(name, dtype):
    """From 1.4e-20 to 5.6e14, where float32 squares have no exponent left."""
    grads = inputs(name)[FULL_RANK]
    plain = aggregated(name, grads, dtype=dtype)
    tol = 1e-4 if dtype == "float32" else 1e-6
    broken = [
        differ(aggregated(name, c * grads, dtype=dtype) / c, plain, grads, tol)
        for c in (2.0**-66, 2.0**-10, 2.0**49)
    ]
    assert np.any(broken) != METHODS[name].scales


@pytest.mark.parametrize("name", NAMES)
def test_any_order(name):
    grads = inputs(name)
    plain = aggregated(name, grads)
    order = order_of(name)
    turned = aggregated(name, grads[:, order], LOSSES[order])
    broken = differ(turned, plain, grads)
    assert np.any(broken[FULL_RANK]) != METHODS[name].symmetric


def test_the_readme_shows_this_table():
    assert promises.table() in README.read_text()
