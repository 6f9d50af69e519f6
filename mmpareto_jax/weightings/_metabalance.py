"""MetaBalance: auxiliary gradients brought near the target's magnitude."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax.weightings._arguments import (
    check,
    check_decay,
    check_integer,
    check_share,
)
from mmpareto_jax.weightings._preference import by_position
from mmpareto_jax.weightings._weighting import Weighting, rows_or_ones

_STRATEGIES = ("reduce", "enlarge", "both")


class MetaBalanceState(NamedTuple):
    """State of MetaBalance.

    Attributes:
      means: [K] running means of the gradients' norms, zeros at first.
    """

    means: jax.Array


def metabalance(
    relax: float = 0.7,
    *,
    beta: float = 0.9,
    strategy: Literal["reduce", "enlarge", "both"] = "both",
    target: int | str = 0,
) -> Weighting:
    r"""Balancing auxiliary objectives against a target objective.

    .. math:: d = g_t + \sum_{k \ne t} \Big( r \frac{m_t}{m_k} + 1 - r \Big) g_k,
        \qquad m_k \leftarrow \beta m_k + (1 - \beta) \|g_k\|

    with running means m of the norms. A gradient of zero stays as it is, whatever its
    mean, and adds nothing. The paper takes norms layer by layer: give each
    layer a group of its own (``ObjectiveGroups.from_labels``) to do so.

    Args:
      relax: r in [0, 1]; 0 leaves the gradients as they are, 1 gives all the target's
        magnitude.
      beta: β in [0, 1).
      strategy: which auxiliary gradients are changed: those longer than the target's
        ("reduce", the paper's strategy A), shorter ("enlarge", B), or "both" (C).
      target: the target's name, or its index in a group's objectives.

    Returns:
      The weighting. The target's weight is 1.

    Raises:
      ValueError: an argument is out of range; in ``init``, a group has no such target.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.metabalance(relax=1.0)
      >>> gramian = jnp.diag(jnp.array([1.0, 16.0]))
      >>> print(weighting.weights(gramian, weighting.init(2))[0])
      [1.   0.25]

    References:
      He et al., MetaBalance: Improving Multi-Task Recommendations via Adapting Gradient
      Magnitudes of Auxiliary Tasks, WWW 2022, https://arxiv.org/abs/2203.06801,
      algorithm 1 and section 3.3.
    """
    check_share("metabalance", "relax", relax)
    check_decay("metabalance", "beta", beta)
    if not isinstance(target, str):
        check_integer("metabalance", "target", target)
    if strategy not in _STRATEGIES:
        raise ValueError(
            f"metabalance: strategy must be one of {_STRATEGIES}, got {strategy!r}."
        )
    make = functools.partial(_metabalance, relax, beta, strategy)
    return by_position(make, "metabalance", "target", target)


def _metabalance(relax: float, beta: float, strategy: str, target: int) -> Weighting:
    def init(num: int) -> MetaBalanceState:
        check("metabalance", "target", target, 0 <= target < num, f"in [0, {num})")
        return MetaBalanceState(jnp.zeros((num,)))

    def weights(
        gramian: jax.Array, state: MetaBalanceState, rows: jax.Array | None = None
    ) -> tuple[jax.Array, MetaBalanceState]:
        rows = rows_or_ones(rows, gramian)
        norms = norms_of(gramian) * rows
        mean = beta * state.means.astype(norms.dtype) + (1 - beta) * norms
        goal = mean[target]
        of = {"reduce": goal < mean, "enlarge": goal > mean, "both": mean > 0}
        others = jnp.arange(len(rows)) != target
        # A mean that dies out under zero gradients would have an infinite ratio.
        changed = of[strategy] & (mean > 0) & (norms > 0) & others
        # goal / mean may be out of range where goal times this is not.
        share = rows / jnp.where(changed, mean, 1.0)
        weights = relax * goal * share + (1 - relax) * rows
        return jnp.where(changed, weights, rows), MetaBalanceState(mean)

    return Weighting(init, weights, ("rows",))
