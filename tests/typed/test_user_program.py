"""A user's program with all public parts of the core: strict for mypy, and it runs."""

from typing import NamedTuple, assert_type, cast

import jax
import jax.numpy as jnp
import optax

import mmpareto_jax as mmp
from mmpareto_jax import ObjectiveGroups, Weighting, weightings

Params = dict[str, jax.Array]
Losses = dict[str, jax.Array]


def losses_fn(params: Params, x: jax.Array) -> Losses:
    features = jnp.tanh(x @ params["encoder"])
    return {
        "joint": jnp.mean((features @ params["head"] - 1) ** 2),
        "unimodal": jnp.mean((features + 1) ** 2),
    }


def losses_and_mean(params: Params, x: jax.Array) -> tuple[Losses, jax.Array]:
    return losses_fn(params, x), jnp.mean(x)


class Smoothed(NamedTuple):
    """State of a rule of one's own."""

    norms: jax.Array


def init(num_objectives: int) -> Smoothed:
    return Smoothed(jnp.ones((num_objectives,), jnp.float32))


def weights(gramian: jax.Array, state: Smoothed) -> tuple[jax.Array, Smoothed]:
    norms = 0.9 * state.norms + 0.1 * jnp.sqrt(jnp.diagonal(gramian))
    return 1 / norms, Smoothed(norms)


PARAMS: Params = {"encoder": jnp.eye(3, 4), "head": jnp.ones((4, 2))}
X = jnp.linspace(-1.0, 1.0, 15).reshape(5, 3)


def train(
    groups: ObjectiveGroups, combination: optax.GradientTransformationExtraArgs
) -> dict[str, dict[str, jax.Array]]:
    """The loop of the README."""
    tx = optax.chain(combination, optax.sgd(0.1, momentum=0.9))
    value_and_grads = mmp.value_and_objective_grads(losses_fn, groups)

    @jax.jit
    def step(
        params: Params, state: optax.OptState, x: jax.Array
    ) -> tuple[Params, optax.OptState, Losses]:
        losses, grads = value_and_grads(params, x)
        updates, state = tx.update(grads, state, params, losses=losses)
        new = cast("Params", optax.apply_updates(params, updates))
        return new, state, losses

    params, state = PARAMS, tx.init(PARAMS)
    totals: list[float] = []
    for _ in range(5):
        params, state, losses = step(params, state, X)
        totals.append(sum(float(x) for x in losses.values()))
    assert totals[-1] < totals[0]
    return mmp.diagnostics(state)


def test_groups_and_rules() -> None:
    groups = mmp.objective_groups(losses_fn, PARAMS, X)
    assert_type(groups, ObjectiveGroups)
    own: Weighting = Weighting(init, weights)
    for combination in (
        mmp.mmpareto(groups),
        mmp.mmpareto(groups, gamma=optax.linear_schedule(1.0, 1.5, 10)),
        mmp.aggregate(weightings.mgda(), groups),
        mmp.aggregate(weightings.dwa(), groups),
        mmp.aggregate(own, groups),
    ):
        seen = train(groups, combination)
        assert_type(seen, dict[str, dict[str, jax.Array]])
        assert set(seen) == {"joint+unimodal"}


def test_the_engine_keeps_the_types_of_the_losses() -> None:
    losses, grads = mmp.value_and_objective_grads(losses_fn)(PARAMS, X)
    assert_type(losses, Losses)
    assert grads["encoder"].shape == (2, 3, 4)
    with_aux = mmp.value_and_objective_grads(losses_and_mean, has_aux=True)
    (losses, mean), grads = with_aux(PARAMS, X)
    assert_type(mean, jax.Array)
    parts = mmp.accumulate(mmp.value_and_objective_grads(losses_fn), 5)
    losses, grads = parts(PARAMS, X)
    assert_type(losses, Losses)


def test_groups_by_hand() -> None:
    prefixes = {"encoder": ("joint", "unimodal"), "head": ("joint",)}
    groups = ObjectiveGroups.from_prefixes(prefixes)
    assert_type(groups.groups["head"], tuple[str, ...])
    assert set(train(groups, mmp.mmpareto(groups))) == {"encoder"}


def test_the_parts() -> None:
    stacked = {"w": jnp.array([[1.0, 1.0], [-2.0, 0.0]])}
    gramian = mmp.gramian(stacked)
    assert_type(gramian, jax.Array)
    assert_type(mmp.min_norm_weights(gramian), jax.Array)


def test_loss_weightings() -> None:
    rule = weightings.famo()
    assert_type(rule, mmp.LossWeighting)
    loss_fn = mmp.scalarize(rule, losses_fn)
    (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        PARAMS, rule.init(2), X
    )
    assert loss.shape == ()
    assert grads["head"].shape == (4, 2)


def test_at_the_features() -> None:
    def features_fn(params: Params, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ params["encoder"])

    def heads(params: Params, features: jax.Array, x: jax.Array) -> Losses:
        out = features @ params["head"]
        return {
            "left": jnp.mean(out[:, 0] ** 2),
            "right": jnp.mean(out[:, 1] - x[:, 0]),
        }

    shared = mmp.feature_level(features_fn, heads, mmp.mmpareto)
    assert_type(shared, mmp.FeatureLevel)
    state = shared.init(PARAMS, X)
    (_, grads), state = shared.value_and_grads(state, PARAMS, X)
    assert grads["encoder"].shape == (3, 4)
