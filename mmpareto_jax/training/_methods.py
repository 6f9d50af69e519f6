"""The methods of ``--method``: what each of them adds to the plain training loop."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.models import Control, Outputs
from mmpareto_jax.training import baselines
from mmpareto_jax.training._config import Config, Fusion

Groups = mmp.ObjectiveGroups
Rule: TypeAlias = "mmp.Weighting | mmp.LossWeighting | mmp.Aggregator"
Transformation: TypeAlias = optax.GradientTransformationExtraArgs


def cross_entropies(
    outputs: Outputs, label: jax.Array, memory: Any = ()
) -> dict[str, jax.Array]:
    """Objective -> mean cross-entropy, a scalar."""
    del memory
    return {
        name: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, label))
        for name, z in outputs.logits.items()
    }


class Method(NamedTuple):
    """What a method adds to the loop, which knows none of them by name.

    Attributes:
      combination: (groups, config) -> the transformation from stacked gradients to
        updates, with ``losses=`` and what `signals` gives.
      probes: whether the unimodal heads only watch, and train no encoder.
      fusion: the fusion that belongs to it; None: that of the config.
      losses: (outputs, label, memory) -> objective -> what is differentiated.
      signals: (outputs, label) -> further arguments for ``tx.update``.
      memory: (outputs of a batch, as shapes) -> what `losses` sees beside the batch;
        part of the state, so of the checkpoints.
      advance: (memory, params, stacked gradients) -> memory, at the end of every step.
      steer: (rest of the model's state, memory) -> rest, after that.
      between_epochs: None, or (state, `Epoch`) -> state, before every epoch but the
        first.
    """

    combination: Callable[[Groups, Config], Transformation]
    probes: bool = False
    fusion: Fusion | None = None
    losses: Callable[[Outputs, jax.Array, Any], dict[str, jax.Array]] = cross_entropies
    signals: Callable[[Outputs, jax.Array], dict[str, Any]] = lambda *_: {}
    memory: Callable[[Outputs], Any] = lambda _: ()
    advance: Callable[[Any, Any, Any], Any] = lambda memory, *_: memory
    steer: Callable[[Any, Any], Any] = lambda rest, _: rest
    between_epochs: Callable[[Any, Epoch], Any] | None = None


class Epoch(NamedTuple):
    """What a method may look at between two epochs.

    Attributes:
      number: of the epochs that are done.
      config: of the run.
      arrays: split -> name -> array [N, ...].
      evaluate: (state, arrays) -> name -> float: losses and accuracies.
      features: (state, arrays) -> encoder -> features [N, D].
      first: the parameters that the run began with.
    """

    number: int
    config: Config
    arrays: Mapping[str, Mapping[str, Any]]
    evaluate: Callable[[Any, Mapping[str, Any]], dict[str, float]]
    features: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
    first: Any


def _of_rule(rule: Callable[[Config], Rule]) -> Method:
    return Method(lambda groups, config: mmp.aggregate(rule(config), groups))


def _uniform_gamma(config: Config) -> Rule:
    """The control: the plain sum with the encoders' learning rate times γ."""
    return mmp.Weighting(
        lambda _: (), lambda gramian, s: (config.gamma * jnp.ones_like(gramian[0]), s)
    )


def _mmpareto(groups: Groups, config: Config) -> Transformation:
    if config.variant == "official":
        return mmp.mmpareto(groups, gamma=config.gamma, variant="official")
    rule = mmp.weightings.mmpareto(
        config.gamma,
        conflict_test=config.conflict_test,
        magnitude=config.magnitude,
        max_magnitude=config.max_magnitude,
    )
    return mmp.aggregate(rule, groups)


# --- Modulation of the joint loss's gradient, after its combination


def _sum(groups: Groups) -> Transformation:
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


def _ogm(groups: Groups, config: Config, *, noise: bool) -> Transformation:
    modalities, given = _modalities(groups), config.alpha
    modulate = baselines.ogm(
        _encoder_of(modalities, 2),
        modalities,
        alpha=0.3 if given is None else given,
        noise=noise,
        seed=config.seed,
    )
    return optax.chain(_sum(groups), modulate)


def _agm(groups: Groups, config: Config) -> Transformation:
    modalities, given = _modalities(groups), config.alpha
    modulate = baselines.agm(
        _encoder_of(modalities, 0), modalities, alpha=0.3 if given is None else given
    )
    return optax.chain(_sum(groups), modulate)


def _scores(outputs: Outputs, label: jax.Array, *, log: bool) -> dict[str, Any]:
    """The right class under each modality's part of the joint logits."""
    if not outputs.parts:
        raise ValueError("method: OGM and AGM need a fusion that adds: concat, sum")
    rows = jnp.arange(len(label))
    logs = {m: jax.nn.log_softmax(z)[rows, label] for m, z in outputs.parts.items()}
    return {"scores": {m: jnp.mean(-x if log else jnp.exp(x)) for m, x in logs.items()}}


# --- Losses


def _pmr(strength: float) -> Method:
    def memory(outputs: Outputs) -> dict[str, Any]:
        classes = outputs.logits["joint"].shape[-1]
        widths = {m: x.shape[-1] for m, x in outputs.features.items()}
        prototypes = {m: jnp.zeros((classes, n)) for m, n in widths.items()}
        return {"known": jnp.zeros(()), "prototypes": prototypes}

    def losses(outputs: Outputs, label: jax.Array, memory: Any) -> dict[str, jax.Array]:
        found = cross_entropies(outputs, label)
        pull = baselines.prototype_losses(outputs.features, label, memory["prototypes"])
        extra = strength * memory["known"] * sum(pull.values())
        return found | {"joint": found["joint"] + extra}

    def renew(state: Any, epoch: Epoch) -> Any:
        arrays, old = epoch.arrays["train"], state.memory["prototypes"]
        found = {
            m: jnp.asarray(
                baselines.class_means(x, arrays["label"], len(old[m])), jnp.float32
            )
            for m, x in epoch.features(state, arrays).items()
        }
        return state._replace(memory={"known": jnp.ones(()), "prototypes": found})

    return Method(
        lambda groups, _: _sum(groups),
        probes=True,
        losses=losses,
        memory=memory,
        between_epochs=renew,
    )


_SUPER_EPOCH = 3


def _blending() -> Method:
    def losses(outputs: Outputs, label: jax.Array, memory: Any) -> dict[str, jax.Array]:
        found = cross_entropies(outputs, label)
        return {k: memory.weights[k] * x for k, x in found.items()}

    def renew(state: Any, epoch: Epoch) -> Any:
        if (epoch.number - 1) % _SUPER_EPOCH:
            return state

        def of(split: str) -> dict[str, float]:
            scores = epoch.evaluate(state, epoch.arrays[split])
            return {k: scores[f"loss/{k}"] for k in state.memory.weights}

        memory = baselines.blend(state.memory, of("train"), of("validation"))
        return state._replace(memory=memory)

    return Method(
        lambda groups, _: _sum(groups),
        losses=losses,
        memory=lambda outputs: baselines.no_blending(tuple(outputs.logits)),
        between_epochs=renew,
    )


# --- Which branch is trained


_WINDOW = 5


def _greedy(config: Config) -> Method:
    epsilon = 0.01 if config.alpha is None else config.alpha

    def advance(memory: Any, params: Any, grads: Any) -> Any:
        exchange, branch = [], []
        for number, name in enumerate(("audio", "visual")):
            mine = f"interaction/excitations/*/{number}/"
            parts = (f"{name}_encoder/", mine, "interaction/squeezes/")
            own, *exchanged = [_squares(part, params, grads) for part in parts]
            both = exchanged[0] + exchanged[1]
            branch.append(own[1] / own[0])
            exchange.append(both[1] / both[0])
        return baselines.watch(
            memory,
            jnp.stack(exchange),
            jnp.stack(branch),
            epsilon=epsilon,
            window=_WINDOW,
            start=2 * config.steps_per_epoch,
        )

    def steer(rest: Any, memory: Any) -> Any:
        return nnx.map_state(
            lambda _, x: x.replace(memory.care) if isinstance(x, Control) else x, rest
        )

    return _joint_only(
        fusion="mmtm",
        memory=lambda _: baselines.not_greedy_yet(),
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


def _relearn(state: Any, epoch: Epoch) -> Any:
    if epoch.number % _RELEARN_EVERY:
        return state
    given, seed = epoch.config.alpha, epoch.config.seed
    train, validation = epoch.arrays["train"], epoch.arrays["validation"]
    now, then = epoch.features(state, train), epoch.features(state, validation)
    strength = {
        m: baselines.relearning_strength(
            baselines.purity(now[m], train["label"], seed=seed),
            baselines.purity(then[m], validation["label"], seed=seed),
            1.0 if given is None else given,
        )
        for m in now
    }
    labels = jax.tree.leaves(
        _encoder_of(tuple(now), 0)(state.params), is_leaf=lambda x: x is None
    )
    leaves, structure = jax.tree.flatten(state.params)
    reset = [
        x if m is None else baselines.soft_reset(x, first, strength[m])
        for x, first, m in zip(
            leaves, jax.tree.leaves(epoch.first), labels, strict=True
        )
    ]
    return state._replace(params=jax.tree.unflatten(structure, reset))


def _joint_only(**more: Any) -> Method:
    """The joint loss alone trains; what watches has one objective per encoder."""
    return Method(lambda groups, _: _sum(groups), probes=True)._replace(**more)


# The methods that are more than a rule of the library as it is by default.
_METHODS: dict[str, Callable[[Config], Method]] = {
    "joint": lambda _: _joint_only(),
    "uniform-gamma": lambda _: _of_rule(_uniform_gamma),
    "pareto": lambda _: _of_rule(lambda _: mmp.weightings.mgda()),
    "mmpareto": lambda _: Method(_mmpareto),
    "dwa": lambda _: _of_rule(
        lambda config: mmp.weightings.dwa(steps_per_epoch=config.steps_per_epoch)
    ),
    "ogm": lambda _: _joint_only(
        combination=functools.partial(_ogm, noise=False),
        signals=functools.partial(_scores, log=False),
    ),
    "ogm-ge": lambda _: _joint_only(
        combination=functools.partial(_ogm, noise=True),
        signals=functools.partial(_scores, log=False),
    ),
    "agm": lambda _: _joint_only(
        combination=_agm, signals=functools.partial(_scores, log=True)
    ),
    "pmr": lambda config: _pmr(1.0 if config.alpha is None else config.alpha),
    "mmcosine": lambda _: _joint_only(fusion="cosine"),
    "greedy": _greedy,
    "g-blending": lambda _: _blending(),
    "relearning": lambda _: _joint_only(between_epochs=_relearn),
}


def method_of(config: Config) -> Method:
    """What the config's method adds to the loop."""
    if config.method in _METHODS:
        return _METHODS[config.method](config)
    name = config.method.replace("-", "_")
    return _of_rule(lambda _: getattr(mmp.weightings, name)())


def optimizer(
    method: Method, groups: Groups, config: Config
) -> optax.GradientTransformationExtraArgs:
    """The whole chain: combination, weight decay, SGD with momentum.

    Weight decay comes after the combination, so γ does not scale it, as in the
    official code. The peak of the learning rate is part of the state: ``optax.tree.set(
    opt_state, peak=...)`` gives another one without another compilation.
    """

    def sgd(peak: jax.Array) -> optax.GradientTransformation:
        lr: optax.ScalarOrSchedule = peak
        if config.schedule == "cosine":
            shape = optax.cosine_decay_schedule(1.0, config.num_steps)

            def lr(step: jax.Array) -> jax.Array:
                return peak * jnp.asarray(shape(step))

        return optax.sgd(lr, momentum=config.momentum)

    return optax.chain(
        method.combination(groups, config),
        optax.add_decayed_weights(config.weight_decay),
        optax.inject_hyperparams(sgd)(peak=config.lr),
    )
