"""G-Blending: losses weighted by how much they generalise for what they overfit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Blending(NamedTuple):
    """What G-Blending remembers: made by ``no_blending``, renewed by ``blend``.

    Attributes:
      weights: objective -> its weight w_k ≥ 0, a scalar; the K of them sum to K.
      train: objective -> the training loss at the last estimate, a scalar; 0 before
        the first.
      validation: objective -> the validation loss then, a scalar; likewise.
    """

    weights: dict[str, jax.Array]
    train: dict[str, jax.Array]
    validation: dict[str, jax.Array]


def no_blending(objectives: tuple[str, ...]) -> Blending:
    """Equal weights, and nothing to compare with yet.

    Args:
      objectives: their K names.

    Returns:
      The memory: each weight 1, each loss 0.

    Example:
      >>> from mmpareto_jax.training import baselines
      >>> print(baselines.no_blending(("joint", "audio")).weights["audio"])
      1.0
    """

    def each(value: float) -> dict[str, jax.Array]:
        return {k: jnp.full((), value) for k in objectives}

    return Blending(each(1.0), each(0.0), each(0.0))


def blend(
    memory: Blending, train: Mapping[str, float], validation: Mapping[str, float]
) -> Blending:
    r"""New weights from the losses now and at the last estimate.

    .. math:: w_k \propto \frac{G_k}{O_k^2}, \qquad G_k = L^V_{k,0} - L^V_{k,1}, \qquad
        O_k = (L^V_{k,1} - L^T_{k,1}) - (L^V_{k,0} - L^T_{k,0})

    with the losses at the last estimate (0) and now (1), and :math:`\sum_k w_k = K`. An
    objective whose validation loss has not fallen gets the weight 0; if none has, the
    weights stay. :math:`O_k^2` counts as at least 1e-6: without overfitting the ratio
    would be infinite. The paper estimates G and O from runs of each modality alone;
    here they come from the run itself, so a modality is seen as the joint model trains
    it.

    Args:
      memory: of the last estimate. Where all its validation losses are 0, there was
        none.
      train: objective -> loss on the training split now.
      validation: objective -> loss on the validation split now.

    Returns:
      The memory with new weights and these losses; at the first estimate, and where
      losses are not finite, the weights stay as they are.

    Raises:
      KeyError: `validation` or `memory` lacks an objective of `train`.

    Example:
      >>> from mmpareto_jax.training import baselines
      >>> memory = baselines.no_blending(("audio", "visual"))
      >>> both = {"audio": 2.0, "visual": 2.0}
      >>> memory = baselines.blend(memory, both, both)
      >>> train = {"audio": 0.5, "visual": 1.0}  # audio overfits more
      >>> memory = baselines.blend(memory, train, {"audio": 1.5, "visual": 1.5})
      >>> for name, weight in memory.weights.items():
      ...     print(name, f"{weight:.2f}")
      audio 0.40
      visual 1.60

    References:
      Wang, Tran & Feiszli, What Makes Training Multi-Modal Classification Networks
      Hard?, CVPR 2020, https://arxiv.org/abs/1905.12681, equation 4 and algorithm 2.
    """
    now = [{k: jnp.asarray(float(x[k])) for k in train} for x in (train, validation)]
    after = memory._replace(train=now[0], validation=now[1])
    if not any(float(x) for x in memory.validation.values()):
        return after
    raw = {}
    for k in train:
        gain = float(memory.validation[k]) - validation[k]
        gap, before = validation[k] - train[k], memory.validation[k] - memory.train[k]
        # Without overfitting the ratio is infinite; this bounds it.
        raw[k] = max(gain, 0.0) / max((gap - float(before)) ** 2, 1e-6)
    total = sum(raw.values())
    if not 0 < total < math.inf:  # nor NaN, of losses that are not finite
        return after
    scale = len(raw) / total
    return after._replace(weights={k: jnp.asarray(scale * x) for k, x in raw.items()})
