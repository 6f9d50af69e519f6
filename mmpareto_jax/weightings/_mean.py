"""Mean weights: the average."""

import jax.numpy as jnp

from mmpareto_jax.weightings._weighting import Weighting, stateless


def mean() -> Weighting:
    r"""The mean of the gradients, :math:`\frac1K \sum_k g_k`.

    Returns:
      The weighting.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weights, _ = mmp.weightings.mean().weights(jnp.eye(4), ())
      >>> print(weights)
      [0.25 0.25 0.25 0.25]
    """
    rule = stateless(lambda gramian: jnp.full_like(gramian[0], 1 / gramian.shape[0]))
    return rule._replace(reads_gramian=False)
