"""What an encoder has learnt, as a linear classifier on its frozen features sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

# Inverse strengths of the ridge penalty; the validation split chooses.
_STRENGTHS = (0.01, 0.1, 1.0, 10.0)


def probe_accuracy(
    features: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> float:
    """Test accuracy of a logistic regression on frozen features.

    It is trained on the training split, its ridge penalty is chosen on validation, and
    features are standardised by the training split. All methods can be compared by it,
    also those that train no unimodal head.

    Args:
      features: "train", "validation" and "test" -> [N, D].
      labels: the same splits -> [N] integers.

    Returns:
      The share of correct predictions on "test"; NaN where a feature is not finite.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> labels = {k: np.arange(60) % 2 for k in ("train", "validation", "test")}
      >>> features = {k: y[:, None] + 0.1 * rng.normal(size=(60, 3))
      ...             for k, y in labels.items()}
      >>> probe_accuracy(features, labels)
      1.0
    """
    from sklearn.linear_model import LogisticRegression

    if not all(np.isfinite(x).all() for x in features.values()):
        return math.nan
    mean = features["train"].mean(axis=0)
    scale = features["train"].std(axis=0) + 1e-6
    inputs = {k: (x - mean) / scale for k, x in features.items()}

    def fit(strength: float) -> LogisticRegression:
        model = LogisticRegression(C=strength, max_iter=1000)
        return model.fit(inputs["train"], labels["train"])

    models = [fit(strength) for strength in _STRENGTHS]
    judge = inputs["validation"], labels["validation"]
    best = max(models, key=lambda model: float(model.score(*judge)))
    return float(best.score(inputs["test"], labels["test"]))
