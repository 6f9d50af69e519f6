"""STCH: smooth Tchebycheff scalarisation."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax

from mmpareto_jax.weightings._arguments import check_positive, check_vector
from mmpareto_jax.weightings._preference import PerObjective, by_name, preference_of
from mmpareto_jax.weightings._weighting import LossWeighting, softmax


def stch(
    mu: float = 1.0,
    *,
    preference: PerObjective | None = None,
    ideal: PerObjective | None = None,
) -> LossWeighting:
    r"""The smooth maximum of the preferred losses.

    .. math:: \mu \log \sum_k \exp \frac{p_k (L_k - z_k)}{\mu}

    Args:
      mu: μ > 0; the smaller, the closer to the maximum.
      preference: p [K], or by name; by default 1/K each.
      ideal: z [K], or by name, the best value of each loss; by default 0.

    Returns:
      The weighting: :math:`p \odot \mathrm{softmax}(p \odot (L - z) / \mu)`.

    Raises:
      ValueError: μ is not positive and finite; a vector of another length than the
        losses.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weights, _ = mmp.weightings.stch(mu=0.1).weights(jnp.array([1.0, 2.0]), ())
      >>> print(weights.round(4))
      [0.0033 0.4967]

    References:
      Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization,
      ICML 2024, https://arxiv.org/abs/2402.19078, equation 8.
    """
    check_positive("stch", "mu", mu)
    if isinstance(preference, Mapping) or isinstance(ideal, Mapping):
        return by_name(
            functools.partial(stch, mu), "stch", preference=preference, ideal=ideal
        )
    check_vector("stch", "preference", preference)
    check_vector("stch", "ideal", ideal)

    def weights(losses: jax.Array, state: tuple[()]) -> tuple[jax.Array, tuple[()]]:
        p = preference_of("stch", preference, losses, default=1.0 / len(losses))
        z = preference_of("stch", ideal, losses, default=0.0, argument="ideal")
        return p * softmax(p * (losses - z) / mu), state

    return LossWeighting(lambda _: (), weights)
