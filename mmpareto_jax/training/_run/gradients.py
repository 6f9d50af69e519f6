"""From a batch to one gradient of the parameters: where the objectives are combined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods.base import Method
from mmpareto_jax.training._tasks.base import Task


class Seen(NamedTuple):
    """What a forward pass gives beside the losses that are differentiated."""

    rest: Any
    scores: dict[str, jax.Array]  # of the batch, whatever the method makes of its loss
    signals: dict[str, Any]


class Gradients(NamedTuple):
    """One of the ways to a gradient.

    Attributes:
      groups: which objectives act on which parameters.
      init: params -> the combination's state.
      of: (state, params, rest, memory, batch) -> what was seen, the objectives'
        gradients as the combination saw them, their combination, the state.
    """

    groups: mmp.ObjectiveGroups
    init: Callable[[Any], Any]
    of: Callable[..., tuple[Seen, Any, Any, Any]]


Model = Callable[[Any, Any], Any]


def gradients(
    config: Config,
    task: Task,
    method: Method,
    model_of: Model,
    example: tuple[Any, ...],
    *,
    plain: bool = False,
) -> Gradients:
    """The way that the config asks for.

    Args:
      config: what to do.
      task: losses and predictions.
      method: what is combined, and how.
      model_of: (params, rest) -> the model, in training mode.
      example: params, rest, memory and batch, for their shapes.
      plain: sum the losses before they are differentiated, by jax alone.
    """

    def seen(model: Any, outputs: Any, memory: Any, batch: Batch) -> tuple[Any, Seen]:
        mask = jnp.ones(len(jax.tree.leaves(dict(batch))[0]))
        found = Seen(
            nnx.state(model, nnx.Not(nnx.Param)),
            task.scores(task.sums(outputs, batch, mask)),
            method.signals(outputs, batch),
        )
        return method.losses(task.losses(outputs, batch), outputs, batch, memory), found

    def losses_fn(params: Any, rest: Any, memory: Any, batch: Batch) -> Any:
        model = model_of(params, rest)
        return seen(model, task.outputs(model, batch), memory, batch)

    if plain:
        return _of_the_sum(losses_fn)
    if config.gradients == "features":
        return _of_the_features(
            config, task, method, model_of, seen=seen, example=example
        )
    groups = mmp.objective_groups(losses_fn, *example, has_aux=True)
    combination = method.combination(groups, config)
    value_and_grads = mmp.value_and_objective_grads(
        losses_fn, groups, has_aux=True, pullback=config.pullback
    )

    def of(state: Any, params: Any, rest: Any, memory: Any, batch: Batch) -> Any:
        (losses, seen), stacked = value_and_grads(params, rest, memory, batch)
        combined, state = combination.update(
            stacked, state, params, losses=losses, **seen.signals
        )
        return seen, stacked, combined, state

    return Gradients(groups, combination.init, of)


def _of_the_features(
    config: Config,
    task: Task,
    method: Method,
    model_of: Model,
    *,
    seen: Callable[..., Any],
    example: tuple[Any, ...],
) -> Gradients:
    if task.trunk is None or task.heads is None:
        raise ValueError(
            "gradients: features need a trunk that all objectives share as it is: "
            f"a multi-task model with --sharing hard, not {config.task}"
        )
    trunk, heads = task.trunk, task.heads

    def features_fn(params: Any, rest: Any, _: Any, batch: Batch) -> Any:
        model = model_of(params, rest)
        return trunk(model, batch), nnx.state(model, nnx.Not(nnx.Param))

    def losses_fn(params: Any, features: Any, after: Any, *args: Any) -> Any:
        _, memory, batch = args
        model = model_of(params, after)
        return seen(model, heads(model, features), memory, batch)

    level = mmp.feature_level(
        features_fn,
        losses_fn,
        lambda found: method.combination(found, config),
        has_aux=True,
        pullback=config.pullback,
    )

    def of(state: Any, params: Any, *rest: Any) -> Any:
        ((_, seen), grads), state = level.value_and_grads(state, params, *rest)
        return seen, grads, grads, state

    return Gradients(
        level.groups(*example), lambda params: level.init(params, *example[1:]), of
    )


def _of_the_sum(losses_fn: Callable[..., Any]) -> Gradients:
    """The plain gradient, as that of a single objective."""
    groups = mmp.ObjectiveGroups.from_prefixes({"": ("sum",)})
    combination = mmp.aggregate(mmp.weightings.uniform(), groups)

    def total(params: Any, *args: Any) -> tuple[jax.Array, Any]:
        losses, seen = losses_fn(params, *args)
        return sum(losses.values()), seen

    def of(state: Any, params: Any, *args: Any) -> Any:
        (_, seen), grads = jax.value_and_grad(total, has_aux=True)(params, *args)
        stacked = jax.tree.map(lambda x: x[None], grads)
        combined, state = combination.update(stacked, state, params)
        return seen, stacked, combined, state

    return Gradients(groups, combination.init, of)
