"""DB-MTL: losses on a logarithmic scale, gradients of one norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.gramian import combine as weighted_sum
from mmpareto_jax._gramians.gramian import group_gramians, norms_of
from mmpareto_jax.weightings._arguments import check_at_least, check_decay
from mmpareto_jax.weightings._memory import kept
from mmpareto_jax.weightings._weighting import Aggregator, required


class DBMTLState(NamedTuple):
    """State of DB-MTL.

    Attributes:
      step: scalar int32.
      means: running means of the gradients of log-losses, like the stacked leaves.
    """

    step: jax.Array
    means: list[jax.Array]


def db_mtl(beta: float = 0.9, *, sigma: float = 0.5) -> Aggregator:
    r"""Dual balancing: of losses by their logarithm, of gradients by their norm.

    .. math:: \hat g_k \leftarrow \beta_t \hat g_k + (1 - \beta_t) \nabla \log L_k,
        \quad \beta_t = \beta / t^\sigma, \qquad d = \max_j \|\hat g_j\| \sum_k
        \frac{\hat g_k}{\|\hat g_k\|}

    It needs ``tx.update(..., losses=losses)``, with positive losses, and keeps a
    running mean of all stacked gradients (K times the shared parameters). Heads, which
    have one objective, keep the gradient of their plain loss.

    An objective whose loss is exactly 0 is left out of the step, and its running mean
    stays. A negative loss makes the update NaN, and leaves the state as it was.

    Args:
      beta: β in [0, 1).
      sigma: σ ≥ 0, how fast the running mean is given up.

    Returns:
      The aggregator.

    Raises:
      ValueError: an argument is out of range; in ``update``, losses are missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> tx = mmp.aggregate(mmp.weightings.db_mtl(beta=0.0), 2)
      >>> grads, losses = jnp.array([[3.0, 0.0], [0.0, 4.0]]), jnp.array([1.0, 2.0])
      >>> print(tx.update(grads, tx.init(jnp.zeros(2)), losses=losses)[0])
      [3. 3.]

    References:
      Lin et al., Dual-Balancing for Multi-Task Learning, 2023,
      https://arxiv.org/abs/2308.12029, algorithm 1.
    """
    check_decay("db_mtl", "beta", beta)
    check_at_least("db_mtl", "sigma", sigma, 0)

    def init(leaves: Sequence[jax.ShapeDtypeStruct]) -> DBMTLState:
        means = [jnp.zeros(x.shape, x.dtype) for x in leaves]
        return DBMTLState(jnp.zeros((), jnp.int32), means)

    def combine(
        leaves: list[jax.Array], state: DBMTLState, losses: jax.Array | None = None
    ) -> tuple[list[jax.Array], DBMTLState]:
        losses = required("db_mtl", losses)
        active = losses != 0  # log L has no gradient at 0
        step = state.step + jnp.any(active).astype(jnp.int32)
        decay = beta * jnp.maximum(step, 1).astype(losses.dtype) ** -sigma

        divisors = jnp.where(
            active, jnp.where((losses < 0) | jnp.isinf(losses), jnp.nan, losses), 1.0
        )

        def mean(x: jax.Array, old: jax.Array) -> jax.Array:
            column = (-1, *[1] * (x.ndim - 1))
            new = x.astype(losses.dtype) / divisors.reshape(column)
            blend = decay * old.astype(losses.dtype) + (1 - decay) * new
            return jnp.where(active.reshape(column), blend.astype(x.dtype), old)

        means = [mean(x, old) for x, old in zip(leaves, state.means, strict=True)]
        (g,) = group_gramians([means])
        longest = jnp.max(g.norms, initial=0.0, where=active)
        # Of the divided rows, which are as long as others: no ratio is out of range.
        own = norms_of(g.total)
        weights = jnp.where(active, longest / jnp.where(own == 0, 1.0, own), 0.0)
        updates = [weighted_sum(weights, x, g.rows) for x in means]
        usable = jnp.all(jnp.isfinite(divisors))
        return updates, kept(usable, DBMTLState(step, means), state)

    return Aggregator(init, combine, ("losses",))
