"""FAMO: all losses fall at the same rate."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax.weightings._arguments import check_optimizer, check_vector
from mmpareto_jax.weightings._memory import Learned, kept, learn, learned
from mmpareto_jax.weightings._preference import PerObjective, by_name, preference_of
from mmpareto_jax.weightings._weighting import LossWeighting


class FAMOState(NamedTuple):
    """State of FAMO.

    Attributes:
      losses: [K], the last ones above their minima; zeros before the first step.
      logits: [K], learned.
    """

    losses: jax.Array
    logits: Learned


def famo(
    optimizer: optax.GradientTransformation | None = None,
    *,
    minimum: PerObjective | None = None,
) -> LossWeighting:
    r"""Fast adaptive multitask optimisation.

    .. math:: c \sum_k z_k \log (L_k - b_k), \qquad z = \mathrm{softmax}(\xi), \qquad
        c = \Big( \sum_k \frac{z_k}{L_k - b_k} \Big)^{-1}

    with the logits ξ trained, beside the model, by the last improvements δ of the
    log-losses: the gradient of ξ is :math:`J_z^\top \delta`, J the softmax's Jacobian.

    The paper measures δ on the batch of the last step, with the new parameters: give
    those losses as ``tx.update(..., losses=losses, last_batch_losses=...)``, for the
    price of a forward pass. Without them the losses of this step's batch take their
    place.

    An objective at its minimum has weight 0 in that step, and an improvement is not
    taken from it or to it; the others are weighted as if it were not there. A loss
    below its minimum makes the weights NaN, and leaves the state as it was.

    Args:
      optimizer: for ξ; by default Adam with learning rate 0.025 and decay 1e-3 in its
        gradient, as in the official code's quantum chemistry (its default is 1e-2).
      minimum: b [K], or by name, at or below every loss; by default 0.

    Returns:
      The weighting: :math:`c z_k / (L_k - b_k)`, which sums to 1.

    Raises:
      ValueError: `minimum` has another length than the losses.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.famo()
      >>> weights, _ = weighting.weights(jnp.array([1.0, 3.0]), weighting.init(2))
      >>> print(weights.round(4))
      [0.75 0.25]

    References:
      Liu et al., FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023,
      https://arxiv.org/abs/2306.03792, algorithm 1.
    """
    check_optimizer("famo", optimizer)
    if optimizer is None:
        optimizer = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.025))
    if isinstance(minimum, Mapping):
        return by_name(functools.partial(famo, optimizer), "famo", minimum=minimum)
    check_vector("famo", "minimum", minimum)

    def init(num: int) -> FAMOState:
        return FAMOState(jnp.zeros((num,)), learned(optimizer, jnp.zeros((num,))))

    def weights(
        losses: jax.Array,
        state: FAMOState,
        last_batch_losses: jax.Array | None = None,
    ) -> tuple[jax.Array, FAMOState]:
        b = preference_of("famo", minimum, losses, default=0.0, argument="minimum")
        gap = _above(losses, b)
        again = gap if last_batch_losses is None else _above(last_batch_losses, b)
        before = state.losses.astype(losses.dtype)
        known = (before != 0) & (again != 0)
        before, again = (jnp.where(known, x, 1.0) for x in (before, again))
        improved = jnp.log(before) - jnp.log(again)
        z = jax.nn.softmax(state.logits.value.astype(losses.dtype), where=known)
        stepped = learn(optimizer, state.logits, z * (improved - z @ improved))
        logits = jax.tree.map(
            lambda new, old: jnp.where(jnp.any(known), new, old), stepped, state.logits
        )
        # z / gap brought to the sum 1; in this form no tiny gap overflows.
        active = gap != 0
        logs = jnp.log(jnp.where(active, gap, 1.0))
        scores = logits.value.astype(losses.dtype) - logs
        weights = jax.nn.softmax(scores, where=active)
        usable = jnp.all(jnp.isfinite(weights))
        return weights, kept(usable, FAMOState(gap, logits), state)

    return LossWeighting(init, weights, ("last_batch_losses",))


def _above(losses: jax.Array, minimum: jax.Array) -> jax.Array:
    """[K] how far; NaN below it, where there is no logarithm."""
    gap = losses - minimum
    return jnp.where(gap < 0, jnp.nan, gap)
