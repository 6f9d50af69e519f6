"""From a batch to one gradient of the parameters: where the objectives are combined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._choices import MULTIMODAL_METHODS
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods.base import Method
from mmpareto_jax.training._tasks.base import Task


class Inputs(NamedTuple):
    """What the losses are of, beside the parameters.

    Attributes:
      rest: the rest of the model's state, before the step.
      memory: what the method keeps beside it.
      batch: the examples.
    """

    rest: Any
    memory: Any
    batch: Batch


class Seen(NamedTuple):
    """What a forward pass gives beside the losses that are differentiated."""

    rest: Any
    scores: dict[str, jax.Array]  # of the batch, whatever the method makes of its loss
    signals: dict[str, Any]


class Combined(NamedTuple):
    """What comes of a batch.

    Attributes:
      losses: objective -> what was differentiated.
      seen: by the forward pass.
      objectives: the objectives' gradients as the combination saw them.
      gradient: their combination, a tree like the parameters.
      state: of the combination, after it.
    """

    losses: dict[str, jax.Array]
    seen: Seen
    objectives: Any
    gradient: Any
    state: Any


class Gradients(NamedTuple):
    """One of the ways to a gradient.

    Attributes:
      groups: which objectives act on which parameters.
      init: params -> the combination's state.
      of: (the combination's state, params, inputs) -> what comes of them.
    """

    groups: mmp.ObjectiveGroups
    init: Callable[[Any], Any]
    of: Callable[[Any, Any, Inputs], Combined]


Model = Callable[[Any, Any], Any]


def gradients(
    config: Config,
    task: Task,
    method: Method,
    model_of: Model,
    example: tuple[Any, Inputs],
    *,
    plain: bool = False,
    rows: Callable[[Any], Any] = lambda stacked: stacked,
) -> Gradients:
    """The way that the config asks for.

    Args:
      config: what to do.
      task: losses and predictions.
      method: what is combined, and how.
      model_of: (params, rest) -> the model, in training mode.
      example: params and inputs, for their shapes.
      plain: sum the losses before they are differentiated, by jax alone.
      rows: the objectives' gradients -> the same, where they are to lie on a mesh.
    """
    outputs_of = (method.probes and task.detached) or task.outputs

    def losses_of(model: Any, outputs: Any, inputs: Inputs) -> tuple[Any, Seen]:
        memory, batch = inputs.memory, inputs.batch
        mask = jnp.ones(len(jax.tree.leaves(dict(batch))[0]))
        found = Seen(
            nnx.state(model, nnx.Not(nnx.Param)),
            task.scores(task.sums(outputs, batch, mask)),
            method.signals(outputs, batch),
        )
        return method.losses(task.losses(outputs, batch), outputs, batch, memory), found

    def losses_fn(params: Any, inputs: Inputs) -> tuple[Any, Seen]:
        model = model_of(params, inputs.rest)
        return losses_of(model, outputs_of(model, inputs.batch), inputs)

    if plain:
        return _of_the_sum(losses_fn)
    if config.gradients == "features":
        return _of_the_features(
            config, task, method, model_of, losses_of=losses_of, example=example
        )
    if config.refresh > 1 and config.method not in MULTIMODAL_METHODS:
        return _refreshed(config, method, losses_fn, example)
    groups = mmp.objective_groups(losses_fn, *example, has_aux=True)
    combination = method.combination(groups, config)
    value_and_grads = mmp.value_and_objective_grads(
        losses_fn, groups, has_aux=True, pullback=config.pullback
    )

    def of(state: Any, params: Any, inputs: Inputs) -> Combined:
        (losses, seen), stacked = value_and_grads(params, inputs)
        stacked = rows(stacked)
        combined, state = combination.update(
            stacked, state, params, losses=losses, **seen.signals
        )
        return Combined(losses, seen, stacked, combined, state)

    return Gradients(groups, combination.init, of)


def _refreshed(
    config: Config,
    method: Method,
    losses_fn: Callable[[Any, Inputs], tuple[Any, Seen]],
    example: tuple[Any, Inputs],
) -> Gradients:
    """Weights are kept between; the objectives' gradients are there now and then."""
    params, inputs = example
    step = mmp.combined_grads(
        losses_fn,
        lambda groups: method.combination(groups, config),
        has_aux=True,
        every=config.refresh,
        pullback=config.pullback,
    )

    def of(state: Any, params: Any, inputs: Inputs) -> Combined:
        ((losses, seen), grads), state = step.value_and_grads(state, params, inputs)
        return Combined(losses, seen, grads, grads, state)

    return Gradients(
        step.groups(params, inputs), lambda params: step.init(params, inputs), of
    )


def probe_of(task: Task, model_of: Model) -> Callable[..., mmp.Probe]:
    """(params, inputs, update=...) -> what is seen of the task's own objectives.

    Whatever the method makes of them; and where it lets a unimodal head only watch,
    the head's loss is followed into its encoder.
    """

    def losses_fn(params: Any, inputs: Inputs) -> dict[str, jax.Array]:
        outputs = task.outputs(model_of(params, inputs.rest), inputs.batch)
        return task.losses(outputs, inputs.batch)

    return mmp.probe(losses_fn)


def _of_the_features(
    config: Config,
    task: Task,
    method: Method,
    model_of: Model,
    *,
    losses_of: Callable[[Any, Any, Inputs], tuple[Any, Seen]],
    example: tuple[Any, Inputs],
) -> Gradients:
    if task.trunk is None or task.heads is None:
        raise ValueError(
            "gradients: features need a trunk that all objectives share as it is: "
            f"a multi-task model with --sharing hard, not {config.task}"
        )
    trunk, heads = task.trunk, task.heads

    def features_fn(params: Any, inputs: Inputs) -> tuple[jax.Array, Any]:
        model = model_of(params, inputs.rest)
        return trunk(model, inputs.batch), nnx.state(model, nnx.Not(nnx.Param))

    def losses_fn(
        params: Any, features: jax.Array, rest: Any, inputs: Inputs
    ) -> tuple[Any, Seen]:
        model = model_of(params, rest)  # as the trunk has left it
        return losses_of(model, heads(model, features), inputs)

    level = mmp.feature_level(
        features_fn,
        losses_fn,
        lambda found: method.combination(found, config),
        has_aux=True,
        pullback=config.pullback,
    )

    def of(state: Any, params: Any, inputs: Inputs) -> Combined:
        ((losses, seen), grads), state = level.value_and_grads(state, params, inputs)
        return Combined(losses, seen, grads, grads, state)

    _, inputs = example
    return Gradients(
        level.groups(*example), lambda params: level.init(params, inputs), of
    )


def _of_the_sum(losses_fn: Callable[[Any, Inputs], tuple[Any, Seen]]) -> Gradients:
    """The plain gradient, as that of a single objective."""
    groups = mmp.ObjectiveGroups.from_prefixes({"": ("sum",)})
    combination = mmp.aggregate(mmp.weightings.uniform(), groups)

    def total(params: Any, inputs: Inputs) -> tuple[jax.Array, Seen]:
        losses, seen = losses_fn(params, inputs)
        return sum(losses.values()), seen

    def of(state: Any, params: Any, inputs: Inputs) -> Combined:
        (loss, seen), grads = jax.value_and_grad(total, has_aux=True)(params, inputs)
        stacked = jax.tree.map(lambda x: x[None], grads)
        combined, state = combination.update(stacked, state, params)
        return Combined({"sum": loss}, seen, stacked, combined, state)

    return Gradients(groups, combination.init, of)
