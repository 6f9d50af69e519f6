"""MGDA: the min-norm point of the convex hull, at every step."""

from mmpareto_jax._min_norm import min_norm_weights
from mmpareto_jax.weightings._weighting import Weighting, stateless


def mgda() -> Weighting:
    r"""The multiple-gradient descent algorithm.

    .. math:: d = \sum_k w_k g_k, \quad w = \arg\min_{w \ge 0,\ \sum w = 1} w^\top G w

    The common descent direction of least norm; zero exactly at a Pareto stationary
    point, and so also as soon as one gradient is zero. This is "conventional Pareto"
    in the MMPareto paper.

    Returns:
      The weighting. Its weights lie on the simplex.

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
      Learning as Multi-Objective Optimization, NeurIPS 2018.
    """
    return stateless(min_norm_weights)
