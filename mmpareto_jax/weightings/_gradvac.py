"""GradVac: gradients are turned until their cosines are as usual."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmpareto_jax._gradients.manual import vary_like
from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax.weightings._arguments import check_integer, check_share
from mmpareto_jax.weightings._memory import RandomState, next_key, random_state
from mmpareto_jax.weightings._weighting import Weighting, rows_or_ones


class GradVacState(NamedTuple):
    """State of GradVac.

    Attributes:
      cosines: [K, K] running means of the cosines between gradients, the targets.
      random: the key.
    """

    cosines: jax.Array
    random: RandomState


def gradvac(beta: float = 0.5, seed: int = 0) -> Weighting:
    r"""Gradient vaccine.

    Each gradient in turn is compared with every other one, in random order. Where
    their cosine φ is below its running mean :math:`\hat\phi`, it is turned towards
    the other one until it reaches it:

    .. math:: h_i \leftarrow h_i + \frac{\|h_i\| (\hat\phi \sqrt{1 - \phi^2} - \phi
        \sqrt{1 - \hat\phi^2})}{\|g_j\| \sqrt{1 - \hat\phi^2}} g_j, \qquad
        \hat\phi \leftarrow (1 - \beta) \hat\phi + \beta \phi, \qquad d = \sum_i h_i

    Args:
      beta: β in [0, 1], the share of the newest cosine in the running mean, which
        starts at 0 (then it does what PCGrad does).
      seed: of the orders; the key is part of the state.

    Returns:
      The weighting.

    Raises:
      ValueError: β is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.gradvac()
      >>> gramian = jnp.array([[1.0, -1.0], [-1.0, 4.0]])
      >>> weights, _ = weighting.weights(gramian, weighting.init(2))
      >>> print(weights)
      [2.   1.25]

    References:
      Wang et al., Gradient Vaccine: Investigating and Improving Multi-task
      Optimization in Massively Multilingual Models, ICLR 2021,
      https://arxiv.org/abs/2010.05874, equation 3.
    """
    check_share("gradvac", "beta", beta)
    check_integer("gradvac", "seed", seed)

    def init(num: int) -> GradVacState:
        return GradVacState(jnp.zeros((num, num)), random_state(seed))

    def weights(
        gramian: jax.Array, state: GradVacState, rows: jax.Array | None = None
    ) -> tuple[jax.Array, GradVacState]:
        scales = rows_or_ones(rows, gramian)
        num, dtype = gramian.shape[0], gramian.dtype
        norms = norms_of(gramian)
        key, random = next_key(state.random)

        def vaccinate(
            i: jax.Array, targets: jax.Array, key: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            """The coefficients [K] of h_i, and the new running means [K]."""

            def against(
                carry: tuple[jax.Array, jax.Array], j: jax.Array
            ) -> tuple[tuple[jax.Array, jax.Array], None]:
                row, targets = carry
                norm = jnp.sqrt(jnp.maximum(row @ gramian @ row, 0.0))
                size = norm * norms[j]
                exists = (size > 0) & (i != j)
                cosine = (gramian[j] @ row) / jnp.where(exists, size, 1.0)
                cosine, target = jnp.clip(cosine, -1.0, 1.0), targets[j]
                # Parallel gradients have no plane to turn in.
                sine = _sine(target)
                turns = exists & (cosine < target) & (sine > 0)
                length = norm * (target * _sine(cosine) - cosine * sine)
                share = length / jnp.where(turns, norms[j] * sine, 1.0)
                row = row.at[j].add(jnp.where(turns, share, 0.0))
                mean = (1 - beta) * target + beta * cosine
                return (row, targets.at[j].set(jnp.where(exists, mean, target))), None

            start = (jnp.arange(num) == i).astype(dtype)
            order = jax.random.permutation(key, num)
            begin = vary_like((start, targets), gramian)
            return lax.scan(against, begin, order)[0]

        turned, cosines = jax.vmap(vaccinate)(
            jnp.arange(num), state.cosines.astype(dtype), jax.random.split(key, num)
        )
        # What is added to a gradient is in proportion to its length.
        found = jnp.sum(scales[:, None] * turned, axis=0)
        return found, GradVacState(cosines, random)

    return Weighting(init, weights, ("rows",))


def _sine(cosine: jax.Array) -> jax.Array:
    """Its derivative at 1, where the root has none, is 0."""
    square = 1 - cosine**2
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
