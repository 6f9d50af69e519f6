"""On-the-fly modulation: the gradient of the modality that leads is made smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Labels = Callable[[Any], Any]


class OGMState(NamedTuple):
    """State of OGM.

    Attributes:
      step: scalar int32.
      key_data: uint32 [2], of the key for the noise.
      coefficients: modality -> scalar, those of the last step.
    """

    step: jax.Array
    key_data: jax.Array
    coefficients: dict[str, jax.Array]


def ogm(
    labels: Labels,
    modalities: tuple[str, ...],
    *,
    alpha: float = 0.3,
    noise: bool = False,
    until: int | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""On-the-fly gradient modulation, with or without generalisation enhancement.

    .. math:: g \leftarrow k_m g \; (+ \varepsilon), \qquad k_m = 1 - \tanh(\alpha
        \rho_m) \text{ if } \rho_m > 1 \text{ else } 1, \qquad \rho_m =
        \frac{s_m}{\frac{1}{M - 1} \sum_{n \ne m} s_n}

    with s the mean probability that a modality alone gives to the right class, and
    Gaussian noise ε of the standard deviation of g, tensor by tensor, in OGM-GE. For
    two modalities :math:`\rho_m` is the ratio of the paper; a single one has none, and
    stays as it is.

    Args:
      labels: updates -> a tree of the modality's name, or None, for every leaf; what is
        None stays as it is. The official code modulates the encoders' kernels.
      modalities: their M names.
      alpha: α ≥ 0.
      noise: whether to add ε (OGM-GE), to every leaf that has a modality.
      until: how many steps to modulate; by default all.
      seed: of the noise; the key is part of the state.

    Returns:
      A transformation of gradients of any shapes, which keep their dtypes; it needs
      ``tx.update(..., scores={modality: s})``, with scalars s in [0, 1]. Its state has
      the coefficients :math:`k_m` of the last step.

    Raises:
      TypeError: in ``update``, there are no `scores`.
      KeyError: in ``update``, a modality has no score, or a label is not one of them.
      ValueError: in ``update``, `labels` gives a tree of another number of leaves.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmpareto_jax.training import baselines
      >>> labels = {"audio_encoder": "audio", "head": None}
      >>> tx = baselines.ogm(lambda grads: labels, ("audio", "visual"), alpha=0.5)
      >>> grads = {"audio_encoder": jnp.ones(2), "head": jnp.ones(2)}
      >>> scores = {"audio": jnp.array(0.8), "visual": jnp.array(0.4)}
      >>> updates, state = tx.update(grads, tx.init(grads), scores=scores)
      >>> print(updates["audio_encoder"].round(4), updates["head"])
      [0.2384 0.2384] [1. 1.]

    References:
      Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR
      2022, https://arxiv.org/abs/2203.15332, equations 9 to 12.
    """

    def init(params: optax.Params) -> OGMState:
        del params
        ones = {m: jnp.ones(()) for m in modalities}
        key = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
        return OGMState(jnp.zeros((), jnp.int32), key, ones)

    def update(
        updates: optax.Updates,
        state: OGMState,
        params: optax.Params | None = None,
        *,
        scores: Mapping[str, jax.Array],
        **extra: Any,
    ) -> tuple[optax.Updates, OGMState]:
        del params, extra
        active = until is None or state.step < until

        def coefficient(m: str) -> jax.Array:
            others = [scores[n] for n in modalities if n != m]
            ratio = scores[m] * len(others) / sum(others)
            leads = (ratio > 1) & active
            return jnp.where(leads, 1 - jnp.tanh(alpha * ratio), 1.0)

        found = {m: coefficient(m) for m in modalities}
        key = jax.random.wrap_key_data(state.key_data, impl="threefry2x32")
        key, later = jax.random.split(key)

        def noisy(index: int, x: jax.Array) -> jax.Array:
            size = jnp.std(x, ddof=1 if x.size > 1 else 0)
            own = jax.random.fold_in(key, index)
            return jnp.where(active, size * jax.random.normal(own, x.shape, x.dtype), 0)

        leaves, structure = jax.tree.flatten(updates)
        changed = _scaled(leaves, labels(updates), found)
        if noise:
            changed = [
                old if old is new else new + noisy(index, old)
                for index, (old, new) in enumerate(zip(leaves, changed, strict=True))
            ]
        after = OGMState(state.step + 1, jax.random.key_data(later), found)
        return jax.tree.unflatten(structure, changed), after

    return optax.GradientTransformationExtraArgs(init, update)


class AGMState(NamedTuple):
    """State of AGM.

    Attributes:
      step: scalar int32.
      means: modality -> scalar, the running mean of its score.
      coefficients: modality -> scalar, those of the last step.
    """

    step: jax.Array
    means: dict[str, jax.Array]
    coefficients: dict[str, jax.Array]


def agm(
    labels: Labels, modalities: tuple[str, ...], *, alpha: float = 0.3
) -> optax.GradientTransformationExtraArgs:
    r"""Adaptive gradient modulation.

    .. math:: g \leftarrow \kappa_m g, \qquad \kappa_m = e^{\alpha \min(\tau_m - r_m,
        10)}, \qquad r_m = e^{\bar s_{\setminus m} - s_m}, \qquad \tau_m = e^{\hat
        s_{\setminus m} - \hat s_m}

    with s the mean negative log-probability of the right class under a modality's own
    part of the logits, :math:`\bar s_{\setminus m}` the mean of the others', and hats
    for running means over all earlier steps (0 at the first).

    The official code scales the gradient at the modality's logits, which for late
    fusion is this, but that its part of the joint head is scaled as well.

    Args:
      labels: updates -> a tree of the modality's name, or None, for every leaf; what is
        None stays as it is.
      modalities: their names, at least two.
      alpha: α ≥ 0.

    Returns:
      A transformation of gradients of any shapes, which keep their dtypes; it needs
      ``tx.update(..., scores={modality: s})``, with scalars s ≥ 0 in nats. Its state
      has the coefficients :math:`\kappa_m` of the last step.

    Raises:
      TypeError: in ``update``, there are no `scores`.
      KeyError: in ``update``, a modality has no score, or a label is not one of them.
      ValueError: in ``update``, `labels` gives a tree of another number of leaves.
      ZeroDivisionError: in ``update``, there is one modality only.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmpareto_jax.training import baselines
      >>> labels = {"audio_encoder": "audio", "head": None}
      >>> tx = baselines.agm(lambda grads: labels, ("audio", "visual"))
      >>> grads = {"audio_encoder": jnp.ones(2), "head": jnp.ones(2)}
      >>> scores = {"audio": jnp.array(0.3), "visual": jnp.array(1.2)}  # audio leads
      >>> updates, state = tx.update(grads, tx.init(grads), scores=scores)
      >>> print(updates["audio_encoder"].round(4), updates["head"])
      [0.6454 0.6454] [1. 1.]

    References:
      Li et al., Boosting Multi-modal Model Performance with Adaptive Gradient
      Modulation, ICCV 2023, https://arxiv.org/abs/2308.07686, algorithm 1.
    """

    def init(params: optax.Params) -> AGMState:
        del params
        zeros = {m: jnp.zeros(()) for m in modalities}
        ones = {m: jnp.ones(()) for m in modalities}
        return AGMState(jnp.zeros((), jnp.int32), zeros, ones)

    def ratio(scores: Mapping[str, jax.Array], m: str) -> jax.Array:
        others = [scores[n] for n in modalities if n != m]
        return jnp.exp(sum(others) / len(others) - scores[m])

    def update(
        updates: optax.Updates,
        state: AGMState,
        params: optax.Params | None = None,
        *,
        scores: Mapping[str, jax.Array],
        **extra: Any,
    ) -> tuple[optax.Updates, AGMState]:
        del params, extra
        found = {
            m: jnp.exp(
                alpha * jnp.minimum(ratio(state.means, m) - ratio(scores, m), 10.0)
            )
            for m in modalities
        }
        step = state.step + 1
        means = {
            m: state.means[m] + (scores[m] - state.means[m]) / step for m in modalities
        }
        leaves, structure = jax.tree.flatten(updates)
        changed = _scaled(leaves, labels(updates), found)
        return jax.tree.unflatten(structure, changed), AGMState(step, means, found)

    return optax.GradientTransformationExtraArgs(init, update)


def _scaled(
    leaves: list[jax.Array], labels: Any, factors: Mapping[str, jax.Array]
) -> list[jax.Array]:
    """The leaves times their modality's factor; others are the same objects."""
    named = jax.tree.leaves(labels, is_leaf=lambda x: x is None)
    return [
        x if m is None else x * factors[m].astype(x.dtype)
        for x, m in zip(leaves, named, strict=True)
    ]
