"""SDMGrad: MGDA pulled towards a preferred direction, stochastically."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmpareto_jax._gradients.manual import vary_like
from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax.weightings._arguments import (
    check_at_least,
    check_decay,
    check_integer,
    check_vector,
)
from mmpareto_jax.weightings._preference import PerObjective, by_name, preference_of
from mmpareto_jax.weightings._simplex import on_simplex
from mmpareto_jax.weightings._weighting import Weighting


class SDMGradState(NamedTuple):
    """State of SDMGrad.

    Attributes:
      simplex: [K], the weights.
    """

    simplex: jax.Array


def sdmgrad(
    lam: float = 0.3,
    *,
    learning_rate: float = 5.0,
    momentum: float = 0.5,
    num_steps: int = 20,
    preference: PerObjective | None = None,
) -> Weighting:
    r"""Stochastic direction-oriented multi-objective gradient descent.

    .. math:: d = \frac{g_w + \lambda g_0}{1 + \lambda}, \qquad w \approx \arg\min_{w
        \in \Delta} \tfrac12 \| g_w + \lambda g_0 \|^2, \qquad g_0 = \sum_k p_k g_k

    with w kept from step to step and improved by a few projected gradient steps with
    momentum, on inner products with the gradients of an independent batch,
    ``tx.update(grads, ..., independent=other_grads)``. Without that argument the
    Gramian of one batch serves, which biases them. As in the official code the inner
    products are divided by the squared mean norm.

    Args:
      lam: λ ≥ 0; 0 follows MGDA, a large one the preferred direction.
      learning_rate: of the inner steps.
      momentum: of the inner steps, in [0, 1).
      num_steps: inner steps for each update.
      preference: p [K], or by name; by default 1/K each.

    Returns:
      The weighting. Its weights sum to 1 (if p does).

    Raises:
      ValueError: an argument is out of range; a preference of another length.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.sdmgrad()
      >>> gramian = jnp.eye(2)
      >>> print(weighting.weights(gramian, weighting.init(2), cross=gramian)[0])
      [0.5 0.5]

    References:
      Xiao, Ban & Ji, Direction-oriented Multi-objective Learning: Simple and Provable
      Stochastic Algorithms, NeurIPS 2023, https://arxiv.org/abs/2305.18409,
      algorithm 1.
    """
    check_at_least("sdmgrad", "lam", lam, 0)
    check_at_least("sdmgrad", "learning_rate", learning_rate, 0)
    check_integer("sdmgrad", "num_steps", num_steps, 1)
    check_decay("sdmgrad", "momentum", momentum)
    if isinstance(preference, Mapping):
        return by_name(
            functools.partial(
                sdmgrad,
                lam,
                learning_rate=learning_rate,
                momentum=momentum,
                num_steps=num_steps,
            ),
            "sdmgrad",
            preference=preference,
        )
    check_vector("sdmgrad", "preference", preference)

    def weights(
        gramian: jax.Array, state: SDMGradState, cross: jax.Array | None = None
    ) -> tuple[jax.Array, SDMGradState]:
        default = 1.0 / len(gramian)
        p = preference_of("sdmgrad", preference, gramian, default=default)
        products = gramian if cross is None else cross
        size = jnp.mean(norms_of(products)) ** 2
        products = products / jnp.where(size > 0, size, 1.0)

        def step(
            carry: tuple[jax.Array, jax.Array], _: None
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            w, velocity = carry
            velocity = momentum * velocity + products @ (w + lam * p)
            return (on_simplex(w - learning_rate * velocity), velocity), None

        start = vary_like(state.simplex.astype(gramian.dtype), products)
        (w, _), _ = lax.scan(step, (start, jnp.zeros_like(start)), length=num_steps)
        found = (w + lam * p) / (1 + lam)
        finite = jnp.isfinite(gramian).all()
        return jnp.where(finite, found, jnp.nan), SDMGradState(w)

    return Weighting(
        lambda num: SDMGradState(jnp.ones((num,)) / num), weights, ("cross",)
    )
