"""Diagnosing & Re-learning: an encoder that has overfitted forgets a part."""

from __future__ import annotations

import math

import jax
import numpy as np


def purity(features: np.ndarray, label: np.ndarray, *, seed: int = 0) -> float:
    r"""How well clusters of features agree with classes.

    Features are clustered by k-means, into as many clusters as there are classes; each
    example is given its cluster's most frequent class:

    .. math:: P = \frac1N \sum_j \max_c |\Omega_j \cap C_c|

    with :math:`\Omega_j` the examples of cluster j, :math:`C_c` those of class c.

    Args:
      features: [N, D], finite.
      label: [N], of any kind; the values that occur are the classes.
      seed: of k-means, which is the best of four starts.

    Returns:
      The share of examples that are given their own class, in (0, 1].

    Raises:
      ValueError: a feature is not finite, or there are no examples.
      IndexError: `features` and `label` have different N.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax.training import baselines
      >>> features = np.array([[0.0], [0.1], [5.0], [5.1]])
      >>> baselines.purity(features, np.array([0, 0, 1, 0]))
      0.75

    References:
      Wei, Li, Feng & Hu, Diagnosing and Re-learning for Balanced Multimodal Learning,
      ECCV 2024, https://arxiv.org/abs/2407.09705
    """
    from sklearn.cluster import KMeans

    if not np.isfinite(features).all():
        raise ValueError("purity: features: expected finite numbers")
    classes, codes = np.unique(label, return_inverse=True)
    clusters = KMeans(len(classes), n_init=4, random_state=seed).fit_predict(features)
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (clusters, codes), 1)
    return float(counts.max(axis=1).sum() / len(label))


def relearning_strength(
    train_purity: float, validation_purity: float, scale: float
) -> float:
    r"""How much of an encoder is reset: :math:`\tanh(\lambda |P_T - P_V|)`.

    Args:
      train_purity: :math:`P_T` of the encoder's features on the training split.
      validation_purity: :math:`P_V` of those on the validation split.
      scale: λ ≥ 0.

    Returns:
      A share in [0, 1], for ``soft_reset``.

    Example:
      >>> from mmpareto_jax.training import baselines
      >>> round(baselines.relearning_strength(0.9, 0.4, scale=1.0), 4)
      0.4621

    References:
      Wei, Li, Feng & Hu, Diagnosing and Re-learning for Balanced Multimodal Learning,
      ECCV 2024, https://arxiv.org/abs/2407.09705, equations 4 to 6.
    """
    return math.tanh(scale * abs(train_purity - validation_purity))


def soft_reset(params: jax.Array, first: jax.Array, strength: float) -> jax.Array:
    r"""The parameters, moved by a share of the way to where they began.

    .. math:: \theta \leftarrow (1 - \alpha) \theta + \alpha \theta_0

    Args:
      params: θ, one floating array of any shape.
      first: :math:`\theta_0`, an array of the same shape.
      strength: α in [0, 1].

    Returns:
      An array of the shape and dtype of `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmpareto_jax.training import baselines
      >>> print(baselines.soft_reset(jnp.array([4.0, 2.0]), jnp.zeros(2), 0.25))
      [3.  1.5]

    References:
      Wei, Li, Feng & Hu, Diagnosing and Re-learning for Balanced Multimodal Learning,
      ECCV 2024, https://arxiv.org/abs/2407.09705
    """
    return ((1 - strength) * params + strength * first).astype(params.dtype)
