"""PMR: the modality that lags is pulled towards its class means."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax


def prototype_losses(
    features: Mapping[str, jax.Array],
    label: jax.Array,
    prototypes: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
    r"""The prototypical cross-entropies of the modalities that lag; else 0.

    A class's logit is minus the squared distance to its prototype, as in the official
    code. With s the mean probability of the right class, a modality lags if its s is
    below the largest one:

    .. math:: L = L_{CE} + \alpha \sum_{m\,:\,s_m < \max_n s_n} L_{PCE}^m

    The entropy term of the paper's first epochs is not part of it.

    Args:
      features: modality -> [B, D].
      label: [B].
      prototypes: modality -> [C, D].

    Returns:
      Modality -> scalar.

    References:
      Fan et al., PMR: Prototypical Modal Rebalance for Multimodal Learning, CVPR 2023,
      https://arxiv.org/abs/2211.07089, equations 7 to 11.
    """
    logits = {
        m: -jnp.sum((x[:, None] - prototypes[m][None]) ** 2, axis=-1)
        for m, x in features.items()
    }
    losses = {
        m: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, label))
        for m, z in logits.items()
    }
    rows = jnp.arange(len(label))
    scores = {
        m: jax.lax.stop_gradient(jnp.mean(jax.nn.softmax(z)[rows, label]))
        for m, z in logits.items()
    }
    best = jnp.max(jnp.stack(list(scores.values())))
    return {m: jnp.where(scores[m] < best, x, 0.0) for m, x in losses.items()}


def class_means(
    features: np.ndarray, label: np.ndarray, num_classes: int
) -> np.ndarray:
    """The prototypes: the mean features of each class.

    Args:
      features: [N, D].
      label: [N].
      num_classes: C.

    Returns:
      [C, D]; zeros for a class without examples.

    Example:
      >>> class_means(np.array([[1.0], [3.0], [8.0]]), np.array([0, 0, 1]), 2)
      array([[2.],
             [8.]])
    """
    rows = np.equal.outer(np.arange(num_classes), label)
    means: np.ndarray = rows @ features / np.maximum(rows.sum(axis=1), 1)[:, None]
    return means
