"""A running mean of the weights of another rule."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.powers import exponents_of, shifted
from mmpareto_jax.weightings._arguments import check_decay
from mmpareto_jax.weightings._mmpareto import ScalarOrSchedule
from mmpareto_jax.weightings._weighting import (
    Names,
    Weighting,
    for_names,
    rows_or_ones,
)


class SmoothedState(NamedTuple):
    """State of the running mean.

    Attributes:
      rule: the state of the rule whose weights are smoothed.
      mean: [K], the running mean, of the weights times `rows`.
      rows: [K], powers of two, the scales of the gradients at the last step.
      step: scalar int32, the steps taken.
    """

    rule: Any
    mean: jax.Array
    rows: jax.Array
    step: jax.Array


def smoothed(weighting: Weighting, decay: ScalarOrSchedule = 0.9) -> Weighting:
    r"""The weights of another rule, averaged over the steps.

    .. math:: w_t = a\, w_{t-1} + (1 - a)\, \hat w_t, \qquad w_1 = \hat w_1

    with :math:`\hat w_t` the weights of the rule at this step, which a small batch
    makes noisy, and a the decay. The paper's schedule is a = 1 - η_t / η_1, with η the
    learning rate. The steps are those at which weights are found: with ``every=n`` of
    :func:`mmpareto_jax.combined_grads` one in n. A mean of weights keeps none of what
    the rule promises of one step: it may ascend an objective that the rule would not.

    Args:
      weighting: the rule. Its state, and what it reads, stay its own.
      decay: a in [0, 1); a number, a traced scalar, or a schedule of the step, the
        first of which is step 0. 0 is the rule itself.

    Returns:
      The weighting. Where a step is not finite nothing of it is kept.

    Raises:
      TypeError: the rule is no ``Weighting``.
      ValueError: the decay is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> rule = mmp.weightings.smoothed(mmp.weightings.mgda(), decay=0.5)
      >>> state = rule.init(2)
      >>> for norms in ([1.0, 1.0], [3.0, 1.0]):
      ...     gramian = jnp.diag(jnp.array(norms))
      ...     weights, state = rule.weights(gramian, state)
      ...     print(weights)
      [0.5 0.5]
      [0.375 0.625]

    References:
      Zhou et al., On the Convergence of Stochastic Multi-Objective Gradient
      Manipulation and Beyond, NeurIPS 2022 (CR-MOGM), algorithm 1.
    """
    if not isinstance(weighting, Weighting):
        raise TypeError(
            "smoothed: needs a Weighting, a rule that weights gradients; got "
            f"{type(weighting).__name__}."
        )
    if not callable(decay):
        check_decay("smoothed", "decay", decay)

    def init(num: int) -> SmoothedState:
        ones = jnp.ones((num,))
        step = jnp.zeros((), jnp.int32)
        return SmoothedState(weighting.init(num), jnp.zeros((num,)), ones, step)

    def weights(
        gramian: jax.Array, state: SmoothedState, **extras: Any
    ) -> tuple[jax.Array, SmoothedState]:
        found, rule = weighting.weights(gramian, state.rule, **extras)
        rows = rows_or_ones(extras.get("rows"), gramian)
        now = decay(state.step) if callable(decay) else decay
        share = jnp.where(state.step == 0, 0.0, jnp.asarray(now, found.dtype))
        before = state.mean.astype(found.dtype)
        older = exponents_of(state.rows.astype(rows.dtype))
        before = shifted(before, exponents_of(rows) - older)
        mean = share * before + (1 - share) * found
        return mean, SmoothedState(rule, mean, rows, state.step + 1)

    def named(names: Names, objectives: Names) -> Weighting:
        return smoothed(for_names(weighting, names, objectives), decay)

    return Weighting(
        init,
        weights,
        weighting.extras,
        weighting.reads_gramian,
        named if weighting.named else None,
    )
