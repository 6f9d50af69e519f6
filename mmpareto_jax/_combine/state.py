"""The state of an aggregation, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmpareto_jax._combine.kinds import Weights
from mmpareto_jax._gramians.gramian import Gramians
from mmpareto_jax._gramians.min_norm import SolverReport
from mmpareto_jax._gramians.powers import exponents_of, power_below, shifted


class AggregateState(NamedTuple):
    """State of ``aggregate`` and of everything made with it.

    Attributes:
      weighting: group -> the rule's own state; for a ``LossWeighting``, which sees all
        objectives at once, its one state.
      diagnostics: group -> what :func:`diagnostics` returns for it. Groups of one
        objective have neither. None with ``diagnostics=False``.
    """

    weighting: Any
    diagnostics: dict[str, dict[str, jax.Array]] | None


def diagnostics(opt_state: optax.OptState) -> dict[str, dict[str, jax.Array]]:
    """What the last update saw and did, per group of two or more objectives.

    Args:
      opt_state: a state that contains the state of an aggregation, however nested.

    Returns:
      Group -> a dict of arrays (float32 or float64, and one bool), zeros before the
      first update:

      * ``norms`` [K]: the norms of the gradients.
      * ``cosine`` []: the smallest cosine between two of the gradients (0 where one
        of a pair is zero).
      * ``conflict`` []: whether it is negative.
      * ``weights`` [K]: the coefficients a_k of the update ``sum_k a_k g_k``; in the
        order of the group's objectives. With a magnitude per leaf, their norm-weighted
        mean. Not for an ``Aggregator``, which has none.
      * ``magnitude`` []: the mean of the weights. 1 for the plain sum, γλ for
        MMPareto, whose min-norm weights are ``weights / weights.sum()``.
      * ``gap`` [] and ``iterations`` []: of a rule that solves a problem, the relative
        error of its solution (for the min-norm point, the duality gap over tr G) and
        the linear systems that it took.

    Raises:
      ValueError: there is no such state, two have a group of the same name, or the
        aggregation was told to keep none.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> tx = mmp.mmpareto(("joint", "audio"))
      >>> state = tx.init(jnp.zeros(2))
      >>> _, state = tx.update(jnp.array([[3.0, 4.0], [4.0, 3.0]]), state)
      >>> print(mmp.diagnostics(state)["all"]["norms"])
      [5. 5.]
    """

    def is_state(x: Any) -> bool:
        return isinstance(x, AggregateState)

    states = [x for x in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(x)]
    if not states:
        raise ValueError("diagnostics: the state contains no AggregateState.")
    found: dict[str, dict[str, jax.Array]] = {}
    for state in states:
        if state.diagnostics is None:
            raise ValueError(
                "diagnostics: the aggregation keeps none: it was made with "
                "diagnostics=False."
            )
        for name, values in _with_reports(state).items():
            if name in found:
                raise ValueError(
                    f"diagnostics: two aggregations have a group {name!r}; ask for the "
                    "state of one of them."
                )
            found[name] = values
    return found


def _with_reports(state: AggregateState) -> dict[str, dict[str, jax.Array]]:
    """The diagnostics, and with them what a solver said of itself."""
    found = {name: dict(values) for name, values in (state.diagnostics or {}).items()}

    def is_report(x: Any) -> bool:
        return isinstance(x, SolverReport)

    if isinstance(state.weighting, Mapping):
        for name, own in state.weighting.items():
            for x in jax.tree.leaves(own, is_leaf=is_report):
                if is_report(x):
                    found[name] |= x._asdict()
    return found


def nothing_seen(
    num: int, dtype: jnp.dtype, *, has_weights: bool
) -> dict[str, jax.Array]:
    """The diagnostics of a group before the first update."""
    found = {
        "norms": jnp.zeros((num,), dtype),
        "cosine": jnp.zeros((), dtype),
        "conflict": jnp.zeros((), bool),
    }
    if has_weights:
        found["weights"] = jnp.zeros((num,), dtype)
        found["magnitude"] = jnp.zeros((), dtype)
    return found


def seen(
    g: Gramians,
    weights: Weights | None,
    *,
    like: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
    """The diagnostics of a group, in the dtypes of the last ones.

    Args:
      g: of the group.
      weights: None for a rule without weights.
      like: the last ones.
    """
    # The root of a zero has no derivative, and nobody asks for one.
    g, weights = jax.lax.stop_gradient((g, weights))
    found = _of_gramian(g)
    if weights is not None:
        found |= _of_weights(g, *weights)
    return {key: x.astype(like[key].dtype) for key, x in found.items()}


def _of_gramian(g: Gramians) -> dict[str, jax.Array]:
    norms = jnp.sqrt(jnp.diagonal(g.total))
    outer = norms[:, None] * norms[None, :]
    cosines = jnp.where(outer == 0, 0.0, g.total / jnp.where(outer == 0, 1.0, outer))
    cosine = jnp.min(cosines[jnp.triu_indices(len(norms), 1)])
    return {"norms": g.norms, "cosine": cosine, "conflict": cosine < 0}


def _of_weights(
    g: Gramians, weights: jax.Array, of_leaves: Sequence[jax.Array] | None
) -> dict[str, jax.Array]:
    """The weights [K] that stand for the update."""
    if of_leaves is None:
        return {"weights": weights / g.rows, "magnitude": _mean(weights, g.rows)}
    before, size = _length([weights] * len(of_leaves), g.leaves)
    after, own_size = _length(of_leaves, g.leaves)
    # In this order nothing is out of range that is not so in the result.
    length = own_size * after / jnp.where(before > 0, before, 1.0)
    factor = length / size
    changed = jnp.where(
        jnp.isfinite(factor), weights * factor, (weights / size) * length
    )
    effective = jnp.where(before > 0, changed, weights)
    return {"weights": effective / g.rows, "magnitude": _mean(effective, g.rows)}


def _mean(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """That of ``weights / rows``; it may be infinite, but is no ∞ - ∞."""
    exponents = jnp.frexp(weights)[1] - exponents_of(rows)
    largest = jnp.max(jnp.where(weights == 0, np.iinfo(np.int32).min, exponents))
    largest = jnp.where((weights == 0).all(), 0, largest)
    mean = jnp.mean(shifted(weights, -exponents_of(rows) - largest))
    return shifted(mean, largest)


def _length(
    weights: Sequence[jax.Array], leaves: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """The norm of an update in units of about its largest weight, and that unit."""
    size = power_below(jnp.max(jnp.abs(jnp.stack(weights))))
    pairs = zip(weights, leaves, strict=True)
    square = sum((w / size) @ leaf @ (w / size) for w, leaf in pairs)
    return jnp.sqrt(jnp.maximum(square, 0.0)), size
