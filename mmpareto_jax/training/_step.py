"""One compiled training step and one compiled evaluation step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.data import eval_batches
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._method import Epoch, cross_entropies
from mmpareto_jax.training._methods import method_of, optimizer
from mmpareto_jax.training._tasks import Task, correct

Batch = Mapping[str, Any]


class TrainState(NamedTuple):
    """Everything that a step changes; a tree of arrays.

    Attributes:
      step: scalar int32, the number of steps done.
      params: the model's ``nnx.Param`` state.
      rest: the rest of the model's state: BatchNorm statistics, random keys.
      opt_state: the optimiser's state.
      memory: what the method keeps beside it.
    """

    step: jax.Array
    params: nnx.State[Any, Any]
    rest: nnx.State[Any, Any]
    opt_state: optax.OptState
    memory: Any


class Seen(NamedTuple):
    """What a forward pass gives beside the losses that are differentiated."""

    rest: nnx.State[Any, Any]
    losses: dict[str, jax.Array]  # cross-entropies, whatever the method makes of them
    correct: dict[str, jax.Array]
    signals: dict[str, Any]


class Program(NamedTuple):
    """A run's compiled functions and its first state.

    Attributes:
      groups: which objectives act on which parameters.
      state: the state before the first step.
      step: (state, batch) -> (state, metrics); donates the state. Metrics are
        scalars by name: loss, accuracy, and the diagnostics of every group.
      evaluate: (state, arrays) -> name -> float: loss and accuracy over all examples.
      features: (state, arrays) -> encoder -> features [N, D] of all examples.
      restart: (seed, learning rate) -> the state before the first step of another run
        of the same program; nothing is compiled for it.
      between_epochs: None, or (state, run's config, epochs done, arrays) -> state: what
        the method does before every epoch but the first.
    """

    groups: mmp.ObjectiveGroups
    state: TrainState
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]
    evaluate: Callable[[TrainState, Mapping[str, Any]], dict[str, float]]
    features: Callable[[TrainState, Mapping[str, Any]], dict[str, np.ndarray]]
    restart: Callable[[int, float], TrainState]
    between_epochs: (
        Callable[[TrainState, Config, int, Mapping[str, Any]], TrainState] | None
    )


def make_program(config: Config, task: Task, *, plain: bool = False) -> Program:
    """Builds the model, infers the groups and makes both steps.

    With `plain` the losses are summed before they are differentiated, by jax alone:
    what a method is timed against.
    """
    method = method_of(config)
    model = task.make_model(nnx.Rngs(config.seed))
    graphdef, variables = nnx.split(model)
    params, rest = nnx.split_state(variables, nnx.Param, ...)
    model.eval()
    eval_graphdef = nnx.graphdef(model)

    def losses_fn(params: Any, rest: Any, memory: Any, batch: Batch) -> Any:
        model = nnx.merge(graphdef, params, rest, copy=True)
        outputs, label = task.outputs(model, batch), batch["label"]
        seen = Seen(
            nnx.state(model, nnx.Not(nnx.Param)),
            cross_entropies(outputs, label),
            correct(outputs, label),
            method.signals(outputs, label),
        )
        return method.losses(outputs, label, memory), seen

    example = {k: x[: config.batch_size] for k, x in task.arrays["train"].items()}
    shapes = nnx.eval_shape(task.outputs, model, example)
    memory = method.memory(shapes)
    groups = mmp.objective_groups(
        losses_fn, params, rest, memory, example, has_aux=True
    )
    value_and_grads = mmp.value_and_objective_grads(
        losses_fn, groups, has_aux=True, pullback=config.pullback
    )
    if plain:
        groups = mmp.ObjectiveGroups.from_prefixes({"": ("sum",)})
        value_and_grads = _gradient_of_the_sum(losses_fn)
    tx = optimizer(method, groups, config)

    def begin(params: Any, seed: int) -> optax.OptState:
        """The optimiser's first state; rules that draw get keys of their own run."""

        def seeded(path: Any, x: jax.Array) -> jax.Array:
            if jax.tree_util.keystr(path[-1:], simple=True) != "key_data":
                return x
            key = jax.random.wrap_key_data(x, impl="threefry2x32")
            return jax.random.key_data(jax.random.fold_in(key, seed))

        return jax.tree.map_with_path(seeded, tx.init(params))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        (losses, seen), grads = value_and_grads(
            state.params, state.rest, state.memory, batch
        )
        updates, opt_state = tx.update(
            grads, state.opt_state, state.params, losses=losses, **seen.signals
        )
        params = optax.apply_updates(state.params, updates)
        metrics = {f"loss/{k}": x for k, x in seen.losses.items()}
        metrics |= {f"accuracy/{k}": jnp.mean(x) for k, x in seen.correct.items()}
        for group, values in mmp.diagnostics(opt_state).items():
            for key in ("cosine", "conflict", "magnitude"):
                if key in values:
                    metrics[f"{group}/{key}"] = values[key]
            for k, name in enumerate(groups.groups[group]):
                metrics[f"{group}/norm/{name}"] = values["norms"][k]
                if "weights" in values:
                    share = values["weights"][k] / jnp.sum(values["weights"])
                    metrics[f"{group}/weight/{name}"] = share
        memory = method.advance(state.memory, state.params, grads)
        after = TrainState(
            state.step + 1, params, method.steer(seen.rest, memory), opt_state, memory
        )
        return after, metrics

    def evaluate_batch(params: Any, rest: Any, batch: Batch) -> dict[str, jax.Array]:
        model = nnx.merge(eval_graphdef, params, rest, copy=True)
        outputs, mask = task.outputs(model, batch), batch["mask"]
        right = correct(outputs, batch["label"])
        sums = {f"accuracy/{k}": jnp.sum(x * mask) for k, x in right.items()}
        for name, z in outputs.logits.items():
            each = optax.softmax_cross_entropy_with_integer_labels(z, batch["label"])
            sums[f"loss/{name}"] = jnp.sum(each * mask)
        return sums

    compiled = jax.jit(evaluate_batch)

    def evaluate(state: TrainState, arrays: Mapping[str, Any]) -> dict[str, float]:
        batches = eval_batches(arrays, batch_size=min(200, len(arrays["label"])))
        totals = [compiled(state.params, state.rest, batch) for batch in batches]
        size = len(arrays["label"])
        return {k: float(sum(t[k] for t in totals)) / size for k in sorted(totals[0])}

    @jax.jit
    def features_of_batch(params: Any, rest: Any, batch: Batch) -> dict[str, jax.Array]:
        model = nnx.merge(eval_graphdef, params, rest, copy=True)
        return task.outputs(model, batch).features

    def features(state: TrainState, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        size = len(arrays["label"])
        batches = eval_batches(arrays, batch_size=min(200, size))
        found = [features_of_batch(state.params, state.rest, x) for x in batches]
        return {k: np.concatenate([x[k] for x in found])[:size] for k in found[0]}

    def restart(seed: int, lr: float) -> TrainState:
        variables = nnx.state(task.make_model(nnx.Rngs(seed)))
        params, rest = nnx.split_state(variables, nnx.Param, ...)
        opt_state = optax.tree.set(begin(params, seed), peak=jnp.asarray(lr))
        # A memory of its own: the first step takes it.
        fresh = method.memory(shapes)
        return TrainState(jnp.zeros((), jnp.int32), params, rest, opt_state, fresh)

    def between_epochs(
        state: TrainState, run: Config, number: int, arrays: Mapping[str, Any]
    ) -> TrainState:
        assert method.between_epochs is not None
        first = restart(run.seed, run.lr).params
        epoch = Epoch(number, run, arrays, evaluate, features, first)
        after: TrainState = method.between_epochs(state, epoch)
        return after

    return Program(
        groups,
        TrainState(
            jnp.zeros((), jnp.int32), params, rest, begin(params, config.seed), memory
        ),
        jax.jit(step, donate_argnums=0),
        evaluate,
        features,
        restart,
        between_epochs if method.between_epochs else None,
    )


def _gradient_of_the_sum(losses_fn: Callable[..., Any]) -> Callable[..., Any]:
    """The plain gradient, stacked as that of a single objective."""

    def total(params: Any, *args: Any) -> tuple[jax.Array, Any]:
        losses, aux = losses_fn(params, *args)
        return sum(losses.values()), (losses, aux)

    def value_and_grads(params: Any, *args: Any) -> Any:
        (_, out), grads = jax.value_and_grad(total, has_aux=True)(params, *args)
        return out, jax.tree.map(lambda x: x[None], grads)

    return value_and_grads
