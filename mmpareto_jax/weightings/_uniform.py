"""Uniform weights: the plain sum."""

import jax.numpy as jnp

from mmpareto_jax.weightings._weighting import Weighting, stateless


def uniform() -> Weighting:
    r"""The sum of the gradients, :math:`\sum_k g_k`: what training on the sum does.

    Returns:
      The weighting.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weights, _ = mmp.weightings.uniform().weights(jnp.eye(3), ())
      >>> print(weights)
      [1. 1. 1.]
    """
    rule = stateless(lambda gramian: jnp.ones_like(gramian[0]))
    return rule._replace(reads_gramian=False)
