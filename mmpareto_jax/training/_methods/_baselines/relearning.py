"""Diagnosing & Re-learning: an encoder that has overfitted forgets a part."""

from __future__ import annotations

import math

import jax
import numpy as np


def purity(features: np.ndarray, label: np.ndarray, *, seed: int = 0) -> float:
    """How well clusters of features agree with classes.

    Features are clustered by k-means, into as many clusters as there are classes; each
    example is given its cluster's most frequent class.

    Args:
      features: [N, D].
      label: [N].
      seed: of k-means.

    Returns:
      The share of examples that are given their own class.

    Example:
      >>> purity(np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 0]))
      0.75
    """
    from sklearn.cluster import KMeans

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
      train_purity: :math:`P_T`.
      validation_purity: :math:`P_V`.
      scale: λ.

    Returns:
      In [0, 1).

    References:
      Wei, Li, Feng & Hu, Diagnosing and Re-learning for Balanced Multimodal Learning,
      ECCV 2024, https://arxiv.org/abs/2407.09705, equations 4 to 6.
    """
    return math.tanh(scale * abs(train_purity - validation_purity))


def soft_reset(params: jax.Array, first: jax.Array, strength: float) -> jax.Array:
    """The parameters, moved by this share of the way to where they began."""
    return ((1 - strength) * params + strength * first).astype(params.dtype)
