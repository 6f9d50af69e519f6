"""MGDA: the min-norm point of the convex hull, at every step."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax._gramians.min_norm import MinNorm, SolverReport, min_norm
from mmpareto_jax.weightings._arguments import check_share, is_known
from mmpareto_jax.weightings._weighting import Weighting, required, rows_or_ones

_NORMALIZATIONS = ("none", "l2", "loss", "loss+")


def mgda(
    normalization: Literal["none", "l2", "loss", "loss+"] = "none",
    *,
    power: float = 1.0,
) -> Weighting:
    r"""The multiple-gradient descent algorithm.

    .. math:: d = \sum_k w_k g_k, \quad w = \arg\min_{w \ge 0,\ \sum w = 1}
        \Big\| \sum_k w_k \frac{g_k}{n_k} \Big\|^2

    With n = 1 the common descent direction of least norm; zero exactly at a Pareto
    stationary point, and so also as soon as one gradient is zero. This is
    "conventional Pareto" in the MMPareto paper.

    Args:
      normalization: the divisors of Sener & Koltun: "none", n = 1; "l2",
        :math:`n_k = \|g_k\|`; "loss", the loss :math:`L_k`; "loss+",
        :math:`L_k \|g_k\|`. They serve to find w; the gradients that w combines stay as
        they are. The last two need ``tx.update(..., losses=losses)``, positive.
      power: p in [0, 1], of the norms in "l2" and "loss+": :math:`\|g_k\|^p`. 0 leaves
        them out.

    Returns:
      The weighting. Its weights lie on the simplex.

    Raises:
      ValueError: an unknown normalisation; a power out of range; in ``update``, losses
        are missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.array([[1.0, -1.0], [-1.0, 4.0]])
      >>> weights, _ = mmp.weightings.mgda().weights(gramian, ())
      >>> print(weights.round(4))
      [0.7143 0.2857]

    References:
      Désidéri, Multiple-gradient descent algorithm (MGDA) for multiobjective
      optimization, Comptes Rendus Mathématique, 2012. Sener & Koltun, Multi-Task
      Learning as Multi-Objective Optimization, NeurIPS 2018. With a power: GAPO,
      Gradient-Adaptive Policy Optimization, ACL 2025.
    """
    if normalization not in _NORMALIZATIONS:
        raise ValueError(
            f"mgda: normalization must be one of {_NORMALIZATIONS}, "
            f"got {normalization!r}."
        )
    check_share("mgda", "power", power)

    def weights(
        gramian: jax.Array,
        _: SolverReport,
        losses: jax.Array | None = None,
        rows: jax.Array | None = None,
    ) -> tuple[jax.Array, SolverReport]:
        rows = rows_or_ones(rows, gramian)
        lengths = rows  # of the normalised gradients, in place of `rows`
        if normalization in ("l2", "loss+"):
            # A zero gradient stays zero: it is then itself the min-norm point.
            norms = norms_of(gramian)
            norms = jnp.where(norms == 0, 1.0, norms)
            gramian = gramian / norms[:, None] / norms[None, :]
            if is_known(power) and power == 1:
                lengths = jnp.ones_like(rows)
            else:  # what the power leaves of the lengths, next to the longest
                relative = rows / jnp.max(rows) * norms
                lengths = (relative / jnp.max(relative)) ** (1 - power)
        if normalization in ("loss", "loss+"):
            known = required("mgda", losses)
            known = jnp.where(known == 0, 1.0, known).astype(rows.dtype)
            # Relative losses: their absolute size could underflow.
            lengths = lengths / (known / jnp.max(jnp.abs(known)))
        found: MinNorm = min_norm(gramian, rows=lengths)
        weights = found.shortest * (rows / lengths) * found.parts
        return weights, found.report

    needs_losses = normalization in ("loss", "loss+")
    extras = ("losses", "rows") if needs_losses else ("rows",)
    return Weighting(lambda _: SolverReport.zeros(), weights, extras)
