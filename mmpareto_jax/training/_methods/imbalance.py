"""The imbalance baselines as methods of the loop."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.models import Control, Outputs
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods._baselines import blending as _blending
from mmpareto_jax.training._methods._baselines import (
    gradient_modulation as _gradient_modulation,
)
from mmpareto_jax.training._methods._baselines import greedy as _greedy
from mmpareto_jax.training._methods._baselines import prototypes as _prototypes
from mmpareto_jax.training._methods._baselines import relearning as _relearning
from mmpareto_jax.training._methods.base import (
    Epoch,
    Groups,
    Losses,
    Method,
    Transformation,
)

# --- Modulation of the joint loss's gradient, after its combination


def plain_sum(groups: Groups) -> Transformation:
    """One row each, as all of these methods have it: the row itself."""
    return mmp.aggregate(mmp.weightings.uniform(), groups)


def _modalities(groups: Groups) -> tuple[str, ...]:
    return tuple(k for k in groups.objectives if k != "joint")


def _encoder_of(modalities: tuple[str, ...], least_ndim: int) -> Callable[[Any], Any]:
    """Params -> the modality of every leaf that belongs to an encoder, else None."""

    def label(path: Any, x: jax.Array) -> str | None:
        name = jax.tree_util.keystr(path, simple=True, separator="/").split("/")[0]
        modality = name.removesuffix("_encoder")
        inside = name.endswith("_encoder") and x.ndim >= least_ndim
        return modality if inside and modality in modalities else None

    return lambda params: jax.tree.map_with_path(label, params)


def ogm(groups: Groups, config: Config, *, noise: bool) -> Transformation:
    modalities, given = _modalities(groups), config.alpha
    modulate = _gradient_modulation.ogm(
        _encoder_of(modalities, 2),
        modalities,
        alpha=0.3 if given is None else given,
        noise=noise,
    )
    return optax.chain(plain_sum(groups), modulate)


def agm(groups: Groups, config: Config) -> Transformation:
    modalities, given = _modalities(groups), config.alpha
    modulate = _gradient_modulation.agm(
        _encoder_of(modalities, 0), modalities, alpha=0.3 if given is None else given
    )
    return optax.chain(plain_sum(groups), modulate)


def scores(outputs: Outputs, batch: Batch, *, log: bool) -> dict[str, Any]:
    """The right class under each modality's part of the joint logits."""
    if not outputs.parts:
        raise ValueError("method: OGM and AGM need a fusion that adds: concat, sum")
    label = batch["label"]
    rows = jnp.arange(len(label))
    logs = {m: jax.nn.log_softmax(z)[rows, label] for m, z in outputs.parts.items()}
    return {"scores": {m: jnp.mean(-x if log else jnp.exp(x)) for m, x in logs.items()}}


# --- Losses


# Of PMR's entropy term, which acts in the first part of the training only.
_ENTROPY, _EARLY = 0.01, 0.2


def pmr(config: Config) -> Method:
    strength = 1.0 if config.alpha is None else config.alpha

    def memory(outputs: Outputs) -> dict[str, Any]:
        classes = outputs.logits["joint"].shape[-1]
        widths = {m: x.shape[-1] for m, x in outputs.features.items()}
        prototypes = {m: jnp.zeros((classes, n)) for m, n in widths.items()}
        return {"alpha": jnp.zeros(()), "mu": jnp.zeros(()), "prototypes": prototypes}

    def losses(found: Losses, outputs: Outputs, batch: Batch, memory: Any) -> Losses:
        extra = _prototypes.prototype_loss(outputs.features, batch["label"], **memory)
        return found | {"joint": found["joint"] + extra}

    def renew(state: Any, epoch: Epoch) -> Any:
        arrays, old = epoch.arrays["train"], state.memory["prototypes"]
        prototypes = {
            m: jnp.asarray(
                _prototypes.class_means(x, arrays["label"], len(old[m])), jnp.float32
            )
            for m, x in epoch.features(state, arrays).items()
        }
        early = epoch.number <= _EARLY * epoch.config.epochs
        memory = {
            "alpha": jnp.asarray(strength, jnp.float32),
            "mu": jnp.asarray(_ENTROPY * early, jnp.float32),
            "prototypes": prototypes,
        }
        return state._replace(memory=memory)

    return Method(
        lambda groups, _: plain_sum(groups),
        probes=True,
        losses=losses,
        memory=memory,
        between_epochs=renew,
    )


_SUPER_EPOCH = 3


def blending() -> Method:
    def losses(found: Losses, outputs: Outputs, batch: Batch, memory: Any) -> Losses:
        del outputs, batch
        return {k: memory.weights[k] * x for k, x in found.items()}

    def renew(state: Any, epoch: Epoch) -> Any:
        if (epoch.number - 1) % _SUPER_EPOCH:
            return state

        def of(split: str) -> dict[str, float]:
            scores = epoch.evaluate(state, epoch.arrays[split])
            return {k: scores[f"loss/{k}"] for k in state.memory.weights}

        memory = _blending.blend(state.memory, of("train"), of("validation"))
        return state._replace(memory=memory)

    return Method(
        lambda groups, _: plain_sum(groups),
        losses=losses,
        memory=lambda outputs: _blending.no_blending(tuple(outputs.logits)),
        between_epochs=renew,
    )


# --- Which branch is trained


_WINDOW = 5


def greedy(config: Config) -> Method:
    epsilon = 0.01 if config.alpha is None else config.alpha

    def advance(memory: Any, params: Any, grads: Any) -> Any:
        exchange, branch = [], []
        # Sorted, which is the models' own order of two modalities.
        encoders = sorted(k for k in params if str(k).endswith("_encoder"))
        for number, name in enumerate(encoders):
            mine = f"interaction/excitations/*/{number}/"
            parts = (f"{name}/", mine, "interaction/squeezes/")
            own, *exchanged = [_squares(part, params, grads) for part in parts]
            both = exchanged[0] + exchanged[1]
            branch.append(own[1] / own[0])
            exchange.append(both[1] / both[0])
        return _greedy.watch(
            memory,
            jnp.stack(exchange),
            jnp.stack(branch),
            epsilon=epsilon,
            window=_WINDOW,
            start=2 * config.steps_per_epoch,
        )

    def memory(outputs: Outputs) -> Any:
        if len(outputs.features) != 2:
            raise ValueError(
                f"method: greedy compares two modalities, got {list(outputs.features)}"
            )
        return _greedy.not_greedy_yet()

    def steer(rest: Any, memory: Any) -> Any:
        return nnx.map_state(
            lambda _, x: x.replace(memory.care) if isinstance(x, Control) else x, rest
        )

    return joint_only(
        fusion="mmtm",
        memory=memory,
        advance=advance,
        steer=steer,
    )


def _squares(pattern: str, *trees: Any) -> jax.Array:
    """The summed squares of the leaves below a path, of each tree."""

    def inside(path: Any) -> bool:
        return fnmatch.fnmatch(
            jax.tree_util.keystr(path, simple=True, separator="/"), pattern + "*"
        )

    def total(tree: Any) -> jax.Array:
        squares = [
            jnp.sum(x**2) for path, x in jax.tree.leaves_with_path(tree) if inside(path)
        ]
        return jnp.sum(jnp.stack(squares))

    return jnp.stack([total(tree) for tree in trees])


# --- Parameters, between epochs

_RELEARN_EVERY = 5


def relearn(state: Any, epoch: Epoch) -> Any:
    if epoch.number % _RELEARN_EVERY:
        return state
    given, seed = epoch.config.alpha, epoch.config.seed
    train, validation = epoch.arrays["train"], epoch.arrays["validation"]
    now, then = epoch.features(state, train), epoch.features(state, validation)
    strength = {
        m: _relearning.relearning_strength(
            _relearning.purity(now[m], train["label"], seed=seed),
            _relearning.purity(then[m], validation["label"], seed=seed),
            1.0 if given is None else given,
        )
        for m in now
    }
    labels = jax.tree.leaves(
        _encoder_of(tuple(now), 0)(state.params), is_leaf=lambda x: x is None
    )
    leaves, structure = jax.tree.flatten(state.params)
    reset = [
        x if m is None else _relearning.soft_reset(x, first, strength[m])
        for x, first, m in zip(
            leaves, jax.tree.leaves(epoch.first), labels, strict=True
        )
    ]
    return state._replace(params=jax.tree.unflatten(structure, reset))


def joint_only(**more: Any) -> Method:
    """The joint loss alone trains; what watches has one objective per encoder."""
    return Method(lambda groups, _: plain_sum(groups), probes=True)._replace(**more)
