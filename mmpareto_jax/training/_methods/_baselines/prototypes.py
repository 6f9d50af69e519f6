"""PMR: the modality that lags is pulled towards its class means."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np


def prototype_loss(
    features: Mapping[str, jax.Array],
    label: jax.Array,
    prototypes: Mapping[str, jax.Array],
    *,
    alpha: float | jax.Array,
    mu: float | jax.Array,
) -> jax.Array:
    r"""What PMR adds to the joint loss.

    A class's logit is minus the Euclidean distance to its prototype; :math:`L_{PCE}^m`
    is the mean cross-entropy of these logits. With s the mean
    probability of the right class under these logits, modalities that lag behind the
    best one b are pulled to their prototypes, and the entropy H of the best one's
    probabilities is kept from vanishing early:

    .. math::
        \alpha \sum_m c_m L_{PCE}^m - \mu \max_m c_m\, H^b, \qquad
        c_m = \min\left(\frac{s_b}{s_m} - 1, 1\right)

    The coefficients c are constants to a derivative, and that of the best one is 0. For
    two modalities these are the paper's coefficients. The official code has 1 in
    place of every positive c, and no entropy.

    Args:
      features: modality -> [B, D], floating; D may be another one for each.
      label: [B], integers from 0 to C - 1.
      prototypes: modality -> [C, D], as of ``class_means``.
      alpha: α, strength of the pull.
      mu: μ, strength of the entropy term.

    Returns:
      A scalar in nats, in the features' dtype.

    Raises:
      KeyError: a modality has no prototypes.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmpareto_jax.training import baselines
      >>> means = jnp.array([[0.0], [4.0]])
      >>> features = {"audio": means, "visual": jnp.array([[2.0], [2.0]])}  # it lags
      >>> prototypes = {"audio": means, "visual": means}
      >>> loss = baselines.prototype_loss(
      ...     features, jnp.array([0, 1]), prototypes, alpha=1.0, mu=0.0
      ... )
      >>> print(f"{loss:.3f}")  # (s_audio / 0.5 - 1) log 2
      0.668

    References:
      Fan et al., PMR: Prototypical Modal Rebalance for Multimodal Learning, CVPR 2023,
      https://arxiv.org/abs/2211.07089, sections 3.2 and 3.3.
    """
    rows = jnp.arange(len(label))
    pulls, entropies, scores = [], [], []
    for m, x in features.items():
        square = jnp.sum((x[:, None] - prototypes[m][None]) ** 2, axis=-1)
        # The square root of 0 has no gradient.
        logs = jax.nn.log_softmax(-jnp.sqrt(square + 1e-12))
        pulls.append(-jnp.mean(logs[rows, label]))
        entropies.append(-jnp.mean(jnp.sum(jnp.exp(logs) * logs, axis=-1)))
        scores.append(jnp.mean(jnp.exp(logs[rows, label])))
    score = jax.lax.stop_gradient(jnp.stack(scores))
    behind = jnp.minimum(jnp.max(score) / score - 1, 1)
    best = jnp.stack(entropies)[jnp.argmax(score)]
    return alpha * jnp.dot(behind, jnp.stack(pulls)) - mu * jnp.max(behind) * best


def class_means(
    features: np.ndarray, label: np.ndarray, num_classes: int
) -> np.ndarray:
    r"""The prototypes: the mean features of each class.

    .. math:: c_k = \frac{1}{|\{i : y_i = k\}|} \sum_{i : y_i = k} z_i

    Args:
      features: z [N, D].
      label: y [N], integers; an example with one outside of 0 to C - 1 counts nowhere.
      num_classes: C.

    Returns:
      [C, D]; zeros for a class without examples.

    Raises:
      ValueError: `features` and `label` have different N.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax.training import baselines
      >>> features, label = np.array([[1.0], [3.0], [8.0]]), np.array([0, 0, 1])
      >>> baselines.class_means(features, label, 2)
      array([[2.],
             [8.]])

    References:
      Fan et al., PMR: Prototypical Modal Rebalance for Multimodal Learning, CVPR 2023,
      https://arxiv.org/abs/2211.07089, section 3.2.
    """
    rows = np.equal.outer(np.arange(num_classes), label)
    means: np.ndarray = rows @ features / np.maximum(rows.sum(axis=1), 1)[:, None]
    return means
