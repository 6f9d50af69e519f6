"""COSMOS: a preferred sum that is drawn to the preferred ray."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._arguments import check_at_least, check_vector
from mmpareto_jax.weightings._preference import PerObjective, by_name, preference_of
from mmpareto_jax.weightings._weighting import LossWeighting


def cosmos(
    lam: float = 1.0, *, preference: PerObjective | None = None
) -> LossWeighting:
    r"""The preferred sum of the losses, less their cosine with the preference.

    .. math:: \sum_k p_k L_k - \lambda \frac{\langle p, L \rangle}{\|p\| \|L\|}

    The paper draws p at every step, and conditions the model on it; here it stays.

    Args:
      lam: λ ≥ 0.
      preference: p [K], or by name; by default 1/K each.

    Returns:
      The weighting: the gradient of that by L. Weights may be negative where λ is
      large; where all losses are zero, p.

    Raises:
      ValueError: λ is negative or not finite; a preference of another length than the
        losses.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weights, _ = mmp.weightings.cosmos(1.0).weights(jnp.array([1.0, 3.0]), ())
      >>> print([f"{x:.2f}" for x in weights])
      ['0.37', '0.54']

    References:
      Ruchte & Grabocka, Scalable Pareto Front Approximation for Deep Multi-Objective
      Learning, ICDM 2021, https://arxiv.org/abs/2103.13392, equation 5.
    """
    check_at_least("cosmos", "lam", lam, 0)
    if isinstance(preference, Mapping):
        return by_name(functools.partial(cosmos, lam), "cosmos", preference=preference)
    check_vector("cosmos", "preference", preference)

    def weights(losses: jax.Array, state: tuple[()]) -> tuple[jax.Array, tuple[()]]:
        p = preference_of("cosmos", preference, losses, default=1.0 / len(losses))
        # The cosine depends on no length; losses of any size are squared near 1.
        largest = jnp.max(jnp.abs(losses))
        size = jnp.where(largest > 0, largest, 1.0)
        unit, towards = _unit(losses / size), _unit(p)
        length = jnp.linalg.norm(losses / size) * size
        slope = (towards - (towards @ unit) * unit) / jnp.where(length > 0, length, 1.0)
        return p - lam * jnp.where(largest > 0, slope, 0.0), state

    return LossWeighting(lambda _: (), weights)


def _unit(x: jax.Array) -> jax.Array:
    length = jnp.linalg.norm(x)
    return x / jnp.where(length > 0, length, 1.0)
