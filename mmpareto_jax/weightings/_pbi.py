"""PBI: penalty-based boundary intersection."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._arguments import check_at_least, check_vector
from mmpareto_jax.weightings._preference import PerObjective, by_name, preference_of
from mmpareto_jax.weightings._weighting import LossWeighting

# Under the root of the distance, whose derivative on the ray there is none.
_EPSILON = 1e-12


def pbi(
    theta: float = 5.0,
    *,
    preference: PerObjective | None = None,
    ideal: PerObjective | None = None,
) -> LossWeighting:
    r"""The length along the preferred ray, and a penalty on the distance from it.

    .. math:: d_1 + \theta \sqrt{d_2^2 + 10^{-12}}, \qquad d_1 = \langle L - z, \hat p
        \rangle, \qquad d_2 = \| (L - z) - d_1 \hat p \|

    with :math:`\hat p = p / \|p\|`.

    Args:
      theta: θ ≥ 0.
      preference: p [K], or by name; by default 1/K each.
      ideal: z [K], or by name, the best value of each loss; by default 0.

    Returns:
      The weighting: the gradient of that by L. Weights may be negative: a loss that is
      below the ray is let go up.

    Raises:
      ValueError: θ is negative or not finite; a vector of another length than the
        losses.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weights, _ = mmp.weightings.pbi(1.0).weights(jnp.array([1.0, 3.0]), ())
      >>> print(weights.round(4))
      [0.     1.4142]

    References:
      Zhang & Li, MOEA/D: A Multiobjective Evolutionary Algorithm Based on
      Decomposition, IEEE Transactions on Evolutionary Computation, 2007, section II.C.
    """
    check_at_least("pbi", "theta", theta, 0)
    if isinstance(preference, Mapping) or isinstance(ideal, Mapping):
        return by_name(
            functools.partial(pbi, theta), "pbi", preference=preference, ideal=ideal
        )
    check_vector("pbi", "preference", preference)
    check_vector("pbi", "ideal", ideal)

    def weights(losses: jax.Array, state: tuple[()]) -> tuple[jax.Array, tuple[()]]:
        p = preference_of("pbi", preference, losses, default=1.0 / len(losses))
        z = preference_of("pbi", ideal, losses, default=0.0, argument="ideal")
        ray = p / jnp.linalg.norm(p)
        above = losses - z
        aside = above - (above @ ray) * ray
        # A root of squares, no square of which leaves the range.
        size = jnp.maximum(jnp.max(jnp.abs(aside)), jnp.sqrt(_EPSILON))
        relative = aside / size
        distance = jnp.sqrt(relative @ relative + _EPSILON / size / size)
        return ray + theta * relative / distance, state

    return LossWeighting(lambda _: (), weights)
