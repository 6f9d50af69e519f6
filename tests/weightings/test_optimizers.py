"""What is left of a rule's promise after an optimiser is what the page says."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import (
    OPTIMIZERS,
    SHAPE,
    applied,
    directions,
    promises_table,
    raises,
    sequences,
    shares_table,
)
from promises import METHODS
from test_promises import LOSSES, K, order_of

import mmpareto_jax as mmp

PAGE = pathlib.Path(__file__).parents[2] / "notebooks" / "docs" / "probe.md"
# Of two objectives only: an optimiser leaves them their progress by chance.
DESCENDING = [name for name, m in METHODS.items() if m.descends and m.num > 2]
LINEAR = [name for name, m in METHODS.items() if m.linear]
pytestmark = pytest.mark.usefixtures("x64")


def differ(a, b):
    """Whether updates differ by more than an optimiser's epsilon can do."""
    return not np.allclose(a, b, rtol=1e-3, atol=1e-3 * np.max(np.abs(b)))


@pytest.mark.parametrize("rule", DESCENDING)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_never_ascends(name, rule):
    grads = sequences(rule)
    found = raises(grads, applied(name, directions(rule, grads)))
    kept = OPTIMIZERS[name].descends
    assert np.any(found[:, 0]) == (kept == "–")
    assert np.any(found[:, 1:]) == (kept != "✓")


@pytest.mark.parametrize("rule", LINEAR)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_linear_in_each_length(name, rule):
    grads = sequences(rule)
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.2, 3, size=(2, len(grads), 1, grads.shape[2], 1))
    one, two, both = (
        applied(name, directions(rule, grads * x)) for x in (a, b, 2 * a + 0.5 * b)
    )
    assert differ(2 * one + 0.5 * two, both) != OPTIMIZERS[name].linear


@pytest.mark.parametrize("rule", [n for n, m in METHODS.items() if m.scales])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor(name, rule):
    grads = sequences(rule)
    plain = applied(name, directions(rule, grads))
    times = applied(name, directions(rule, 8 * grads))
    cancels = OPTIMIZERS[name].factor == "cancels"
    assert not differ(times, plain if cancels else 8 * plain)


@pytest.mark.parametrize("rule", [n for n, m in METHODS.items() if m.symmetric])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_order(name, rule):
    grads = sequences(rule)
    plain = applied(name, directions(rule, grads))
    order = order_of(rule)
    turned = applied(name, directions(rule, grads[:, :, order], LOSSES[order]))
    assert differ(turned, plain) != OPTIMIZERS[name].symmetric


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gamma(name):
    """MMPareto's own factor, at every step of a chain."""

    def updates(gamma):
        tx = optax.chain(mmp.mmpareto(K, gamma=gamma), OPTIMIZERS[name].tx)
        params = jnp.zeros(SHAPE)
        state, found = tx.init(params), []
        for rows in sequences("mmpareto")[30]:
            step, state = tx.update(rows.reshape(K, *SHAPE), state, params)
            found.append(step)
        return np.stack(found)

    cancels = OPTIMIZERS[name].factor == "cancels"
    once, thrice = updates(1.0), updates(3.0)
    assert not differ(thrice, once if cancels else 3 * once)


def test_muon_takes_matrices_only():
    """All else goes through its Adam, Nesterov's: stacked gradients would, too."""
    rng = np.random.default_rng(0)
    grads = {
        "matrix": rng.normal(size=(3, 4)),
        "bias": rng.normal(size=4),
        "kernel": rng.normal(size=(3, 3, 2, 4)),
        "stacked": rng.normal(size=(2, 3, 4)),
    }
    found = {}
    adam = optax.nadam(0.1)
    for name, tx in (("muon", optax.contrib.muon(0.1)), ("adam", adam)):
        params = jax.tree.map(jnp.zeros_like, grads)
        found[name], _ = tx.update(grads, tx.init(params), params)
    for name in grads:
        same = not differ(found["muon"][name], found["adam"][name])
        assert same == (name != "matrix")


def test_the_page_shows_these_tables():
    text = PAGE.read_text()
    assert promises_table() in text
    assert shares_table() in text
