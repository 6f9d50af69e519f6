"""MMPareto as an Optax transformation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmpareto_jax._combine.aggregate import aggregate, transformation
from mmpareto_jax._gradients.groups import Objectives
from mmpareto_jax._gramians.min_norm import SolverReport
from mmpareto_jax._gramians.powers import power_below
from mmpareto_jax.weightings import _mmpareto as rules


def mmpareto(
    objectives: Objectives,
    *,
    gamma: rules.ScalarOrSchedule = 1.5,
    variant: Literal["paper", "official"] = "paper",
    conflict_test: bool = True,
    magnitude: bool = True,
    max_magnitude: float | None = None,
    axis_name: str | Sequence[str] | None = None,
    diagnostics: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Combines the gradients of several objectives by the MMPareto rule.

    For every group of parameters, with gradients :math:`g_1, \dots, g_K` (in the paper
    two: the joint and the modality's own loss, on that modality's encoder):

    1. There is a conflict when :math:`\langle g_i, g_j \rangle < 0` for some pair.
    2. Without conflict :math:`w_k = 1/K`; in conflict :math:`w` is the min-norm point
       of the convex hull, :math:`\arg\min_{w \ge 0,\ \sum w = 1} \|\sum w_k g_k\|`.
    3. Direction :math:`h = K \sum_k w_k g_k`: without conflict the plain sum.
    4. Magnitude: :math:`\gamma \lambda h` with :math:`\lambda = \|\sum_k g_k\| /
       \|h\|`, so the norm is that of the plain sum, times γ.

    Groups of one objective (the heads) pass unchanged, without γ. Under SGD, γ is
    therefore a learning-rate factor for the shared parameters: compare with uniform
    weights at that learning rate, not without.

    All weights come from the Gramian of the group; the gradients are read twice. A
    direction below the noise floor of its Gramian, :math:`\|d\|^2 \le 10\,\epsilon
    (\sum_k w_k \|g_k\|)^2` (a Pareto stationary point), is zero. An objective with
    zero gradient conflicts with none and leaves the others to be combined; numbers
    below the smallest normal one count as zero, as processors have it. A group
    with a NaN or an infinity becomes NaN throughout: put ``optax.apply_if_finite``
    around what comes *after* this transformation, or around nothing, but not around
    this.

    Args:
      objectives: the groups (:func:`objective_groups`), or K, or K names: then every
        leaf carries the same K objectives.
      gamma: γ ≥ 0; a number, a traced scalar, or a schedule of the step.
      variant: "paper", as above; or "official", what the published code does: a
        cosine of exactly 0 is a conflict too, and every tensor is rescaled by itself,
        upwards only, :math:`\max(1, \lambda_\text{tensor})`. Rescaling tensors
        apart turns the direction: "official" can ascend an objective, where "paper"
        descends all of them.
      conflict_test: False takes the min-norm point at every step; for ablations.
      magnitude: False leaves out λ, and the direction keeps its own norm.
      max_magnitude: upper limit of λ (of every tensor's), at least 1; by default none.
        λ has no bound: where a gradient that has nearly vanished conflicts with one
        that has not, it carries nearly all of the weight, and the factor that restores
        the norm is the ratio of the two lengths. Many tasks of unequal difficulty need
        a limit.
      axis_name: see :func:`aggregate`.
      diagnostics: see :func:`aggregate`.

    Returns:
      A transformation from updates with leaves [K_g, \*param.shape] to updates with
      leaves [\*param.shape] of the same dtype. First in an ``optax.chain``. Its state
      is read by :func:`diagnostics`.

    Raises:
      TypeError: `objectives` is of another type; in ``update``, a leaf is not real
        and floating.
      ValueError: γ is negative or not finite, a limit below 1, K < 1, an unknown
        `variant`; in ``update``, a leaf is not stacked as its group asks, or varies
        over an axis that `axis_name` does not mention, named by its path.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> grads = {"encoder": jnp.array([[1.0, 1.0], [-2.0, 0.0]])}  # a conflict
      >>> tx = mmp.mmpareto(("joint", "unimodal"), gamma=1.5)
      >>> updates, state = tx.update(grads, tx.init({"encoder": jnp.zeros(2)}))
      >>> print(updates["encoder"].round(4))
      [-0.6708  2.0125]
      >>> print(mmp.diagnostics(state)["all"]["cosine"].round(4))
      -0.7071

    References:
      Wei & Hu, MMPareto: Boosting Multimodal Learning with Innocent Unimodal
      Assistance, ICML 2024, https://arxiv.org/abs/2405.17730
    """
    if variant == "paper":
        rule = rules.mmpareto(
            gamma,
            conflict_test=conflict_test,
            magnitude=magnitude,
            max_magnitude=max_magnitude,
        )
        return aggregate(rule, objectives, axis_name=axis_name, diagnostics=diagnostics)
    if variant == "official":
        rules.check_limit(max_magnitude)
        return transformation(
            rules.scaled(
                gamma, functools.partial(_official_direction, always=not conflict_test)
            ),
            objectives,
            functools.partial(_upward, limit=max_magnitude) if magnitude else None,
            axis_name=axis_name,
            diagnostics=diagnostics,
        )
    raise ValueError(
        f"mmpareto: `variant` must be 'paper' or 'official', got {variant!r}."
    )


def _official_direction(
    gramian: jax.Array, rows: jax.Array, *, always: bool
) -> tuple[jax.Array, SolverReport]:
    found = rules.pareto(gramian, rows, strict=False, always=always)
    num = jnp.sum(found.alive, dtype=gramian.dtype)
    changed = found.conflict & found.alive
    weights = jnp.where(changed, num * found.shortest * found.parts, rows)
    return rules.visible(weights, gramian), found.report


def _upward(
    gramian: jax.Array, weights: jax.Array, rows: jax.Array, *, limit: float | None
) -> jax.Array:
    """The weights of one tensor times max(1, λ); as they are if they cancel there."""
    # Near 1: squares of the weights may be out of range.
    size = power_below(jax.lax.stop_gradient(jnp.max(jnp.abs(weights))))
    direction = weights / size
    square = direction @ gramian @ direction
    reach = jnp.abs(direction) @ jnp.sqrt(jnp.diagonal(gramian))
    noise = square <= 10 * np.finfo(gramian.dtype).eps * reach**2
    length = jnp.sqrt(jnp.where(noise, 1.0, square))
    # The mean of the true weights is γ; it may be 0, then all of them are.
    gamma = jnp.mean(weights / rows)
    longest = jnp.max(rows)
    relative = rows / longest
    ratio = jnp.sqrt(jnp.maximum(relative @ gramian @ relative, 0.0)) / length
    restored = gamma * longest * ratio
    upward = jnp.maximum(restored, size)
    if limit is not None:
        upward = jnp.minimum(upward, jnp.asarray(limit, size.dtype) * size)
    # Of a direction near 1 a much shorter gradient's part would be lost.
    factor = upward / size
    longer = jnp.where(jnp.isfinite(factor), factor * weights, upward * direction)
    return jnp.where(noise, weights, longer)
