"""FairGrad: α-fair shares of the descent."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.balance import balance
from mmpareto_jax._gramians.min_norm import SolverReport
from mmpareto_jax.weightings._arguments import check_positive
from mmpareto_jax.weightings._weighting import (
    Weighting,
    rows_or_ones,
    zero_where_stationary,
)


def fairgrad(alpha: float = 1.0) -> Weighting:
    r"""α-fair resource allocation between objectives.

    .. math:: \max_{\|d\| \le 1} \sum_k \frac{\langle g_k, d \rangle^{1 - \alpha}}{1 -
        \alpha} \quad \Rightarrow \quad d = \sum_k w_k g_k, \quad (G w)_k = w_k^{-1 /
        \alpha}

    α = 1 is the Nash bargaining solution, α → ∞ max-min fairness. A gradient that is
    zero, whose objective nothing can serve, is left out.

    Args:
      alpha: α > 0. (α = 0, the plain sum, is ``uniform``.)

    Returns:
      The weighting. Weights are positive; zero at a Pareto stationary point. They are
      not a function of the direction only: c times the gradients give
      :math:`c^{-2\alpha/(1+\alpha)}` times the weights.

    Raises:
      ValueError: α is not positive and finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.fairgrad()
      >>> gramian = jnp.diag(jnp.array([1.0, 4.0]))
      >>> print(weighting.weights(gramian, weighting.init(2))[0])
      [1.  0.5]

    References:
      Ban & Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024,
      https://arxiv.org/abs/2402.15638, equation 6 and algorithm 1.
    """
    check_positive("fairgrad", "alpha", alpha)

    def weights(
        gramian: jax.Array, _: SolverReport, rows: jax.Array | None = None
    ) -> tuple[jax.Array, SolverReport]:
        return fair_weights(gramian, alpha, rows_or_ones(rows, gramian))

    return Weighting(lambda _: SolverReport.zeros(), weights, ("rows",))


def fair_weights(
    gramian: jax.Array, alpha: float | jax.Array, rows: jax.Array
) -> tuple[jax.Array, SolverReport]:
    """The weights [K] of the objectives that have a gradient; 0 for the others."""
    alive = jnp.diagonal(gramian) > 0
    both = alive[:, None] & alive[None, :]
    own = jnp.where(both, gramian, jnp.eye(len(gramian), dtype=gramian.dtype))
    found, report = balance(own, alpha, rows)
    found = zero_where_stationary(jnp.where(alive, found, 0.0), gramian)
    return jnp.where(jnp.isfinite(gramian).all(), found, jnp.nan), report
