"""ExcessMTL: objectives that are far from their optimum weigh more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax.weightings._arguments import check_at_least, check_integer
from mmpareto_jax.weightings._weighting import Aggregator, softmax

_EPSILON = 1e-7


class ExcessMTLState(NamedTuple):
    """State of ExcessMTL.

    Attributes:
      step: scalar int32, the steps taken.
      roots: of the sums of the squared gradients, of the shape of each stacked leaf.
      baseline: [K], the excess risks that the others are divided by.
      logits: [K], the logarithms of the weights, up to a constant.
    """

    step: jax.Array
    roots: list[jax.Array]
    baseline: jax.Array
    logits: jax.Array


def excess_mtl(learning_rate: float = 1.0, *, warmup: int = 1) -> Aggregator:
    r"""Weights that grow with the excess risk, estimated from the gradients.

    .. math:: e_k = \Big\langle g_k, \frac{g_k}{\sqrt{S_k + 10^{-7}}} \Big\rangle,
        \qquad S_k \leftarrow S_k + g_k^2, \qquad w_k \propto w_k \exp \Big( \eta
        \frac{e_k}{\bar e_k} \Big)

    coordinate by coordinate, with :math:`\bar e_k` the mean over the first steps, in
    which all weights are 1/K. An objective with noisy labels keeps a high loss, but a
    small excess.

    Args:
      learning_rate: η > 0.
      warmup: number of the first steps, at least 1. (Published code has none, and then
        takes the first step's excess itself for the weights of that step.)

    Returns:
      The aggregator, with weights that sum to 1; its state is of the size of all
      objectives' gradients.

    Raises:
      ValueError: an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> tx = mmp.aggregate(mmp.weightings.excess_mtl(), 2)
      >>> grads = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> print(tx.update(grads, tx.init(jnp.zeros(2)))[0])
      [0.5 1. ]

    References:
      He et al., Robust Multi-Task Learning with Excess Risks, ICML 2024,
      https://arxiv.org/abs/2402.02009, equations 6, 7 and 9, and appendix C.1.
    """
    check_at_least("excess_mtl", "learning_rate", learning_rate, 0)
    check_integer("excess_mtl", "warmup", warmup, 1)

    def init(leaves: Sequence[jax.ShapeDtypeStruct]) -> ExcessMTLState:
        zeros = jnp.zeros((leaves[0].shape[0],))
        roots = [jnp.zeros(x.shape, wide(x)) for x in leaves]
        return ExcessMTLState(jnp.zeros((), jnp.int32), roots, zeros, zeros)

    def combine(
        leaves: list[jax.Array], state: ExcessMTLState
    ) -> tuple[list[jax.Array], ExcessMTLState]:
        sizes = [jnp.abs(x.astype(wide(x))) for x in leaves]
        # Roots in place of squares, which would leave the dtype's range.
        roots = [jnp.hypot(s, x) for s, x in zip(state.roots, sizes, strict=True)]
        found = sum(
            jnp.sum(
                x * (x / jnp.hypot(s, jnp.sqrt(jnp.asarray(_EPSILON, x.dtype)))),
                axis=tuple(range(1, x.ndim)),
            )
            for x, s in zip(sizes, roots, strict=True)
        )
        excess = jnp.asarray(found, state.logits.dtype)
        warm = state.step < warmup
        baseline = state.baseline + jnp.where(warm, excess / warmup, 0.0)
        growth = jnp.where(warm, 0.0, learning_rate * excess / (baseline + _EPSILON))
        logits = state.logits + growth
        logits -= jnp.max(logits)
        weights = softmax(logits)
        updates = [jnp.tensordot(weights.astype(x.dtype), x, axes=1) for x in leaves]
        after = ExcessMTLState(state.step + 1, roots, baseline, logits)
        return updates, after

    return Aggregator(init, combine)
