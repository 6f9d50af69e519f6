"""ConFIG: the conflict-free direction."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax._gramians.linalg import psd_solve
from mmpareto_jax.weightings._arguments import check_vector
from mmpareto_jax.weightings._preference import PerObjective, by_name, preference_of
from mmpareto_jax.weightings._weighting import Weighting, of_rows


def config(preference: PerObjective | None = None) -> Weighting:
    r"""Conflict-free inverse gradients.

    The direction has the same cosine with every gradient (or cosines in the ratio of
    the preference), and the length of the summed projections on it:

    .. math:: v = U^+ p, \qquad d = \Big( \sum_k \langle g_k, \hat v \rangle \Big)
        \hat v, \qquad \hat v = v / \|v\|

    with the unit gradients as rows of U. A zero gradient has no say.

    Args:
      preference: p [K], or by name; by default 1 each.

    Returns:
      The weighting. Weights may be negative.

    Raises:
      ValueError: a preference of another length than a group.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.diag(jnp.array([1.0, 4.0]))
      >>> print(mmp.weightings.config().weights(gramian, ())[0])
      [1.5  0.75]

    References:
      Liu et al., ConFIG: Towards Conflict-free Training of Physics Informed Neural
      Networks, ICLR 2025, https://arxiv.org/abs/2408.11104, equation 2.
    """
    if isinstance(preference, Mapping):
        return by_name(config, "config", preference=preference)
    check_vector("config", "preference", preference)

    def weights(gramian: jax.Array, rows: jax.Array) -> jax.Array:
        p = preference_of("config", preference, gramian, default=1.0)
        norms = norms_of(gramian)
        alive = norms > 0
        unit = jnp.where(alive, norms, 1.0)
        cosines = gramian / unit[:, None] / unit[None, :]
        v = psd_solve(cosines, jnp.where(alive, p, 0.0)) / unit
        v = jnp.where(alive, v, 0.0)
        square = v @ gramian @ v
        reach = jnp.abs(v) @ norms
        usable = square > 10 * np.finfo(gramian.dtype).eps * reach**2
        longest = jnp.max(rows)
        length = (rows / longest) @ gramian @ v
        weights = longest * (v * length / jnp.where(usable, square, 1.0))
        weights = jnp.where(usable, weights, 0.0)
        return jnp.where(jnp.isfinite(gramian).all(), weights, jnp.nan)

    return of_rows(weights)
