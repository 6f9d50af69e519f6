"""One compiled training step and one compiled evaluation step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.data import Source, as_examples
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods.base import Epoch
from mmpareto_jax.training._methods.registry import method_of
from mmpareto_jax.training._run.evaluation import evaluation
from mmpareto_jax.training._run.gradients import (
    Combined,
    Inputs,
    gradients,
    probe_of,
)
from mmpareto_jax.training._run.nonfinite import faults_of, undone
from mmpareto_jax.training._run.numbers import numbers
from mmpareto_jax.training._run.optimizer import optimizer
from mmpareto_jax.training._run.placement import ONE_DEVICE, Placement
from mmpareto_jax.training._run.state import TrainState
from mmpareto_jax.training._run.tally import ENDED, Tally
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.precise import precise


class Program(NamedTuple):
    """A run's compiled functions and its first state.

    Attributes:
      groups: which objectives act on which parameters.
      state: the state before the first step.
      step: (state, batch) -> (state, metrics); donates the state. Metrics are
        scalars by name: losses, measures, the diagnostics of every group, and what
        was not finite.
      tally: (state, batch) -> how the step's metrics are packed; computes nothing.
      logged: (state, tally, batch) -> (state, tally with this step's metrics): the same
        step, whose metrics stay on the device; donates the state.
      logged_each: ``logged`` of several runs, whose states, tallies and batches are
        stacked.
      probe: (state, batch) -> what ``mmp.probe`` sees of the task's objectives and of
        the update of this step, which it does not make.
      evaluate: (state, examples) -> name -> float: losses and measures of all.
      evaluate_each: (states of several runs, stacked; examples) -> for each run what
        ``evaluate`` gives.
      features: (state, examples) -> encoder -> features [N, D] of all.
      restart: (seed, learning rate) -> the state before the first step of another run
        of the same program; nothing is compiled for it.
      between_epochs: None, or (state, run's config, epochs done, data) -> state: what
        the method does before every epoch but the first.
    """

    groups: mmp.ObjectiveGroups
    state: TrainState
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]
    tally: Callable[[TrainState, Batch], Tally]
    logged: Callable[[TrainState, Any, Batch], tuple[TrainState, jax.Array]]
    logged_each: Callable[[TrainState, Any, Batch], tuple[TrainState, jax.Array]]
    probe: Callable[[TrainState, Batch], mmp.Probe]
    evaluate: Callable[[TrainState, Source], dict[str, float]]
    evaluate_each: Callable[[TrainState, Source], list[dict[str, float]]]
    features: Callable[[TrainState, Source], dict[str, np.ndarray]]
    restart: Callable[[int, float], TrainState]
    between_epochs: (
        Callable[[TrainState, Config, int, Mapping[str, Source]], TrainState] | None
    )


def _of_this_step(combination: Any) -> dict[str, dict[str, jax.Array]]:
    """The diagnostics; NaN where they are those of an earlier step.

    A cosine that is NaN is no conflict, and none is known of it.
    """
    refreshed = isinstance(combination, mmp.RefreshState)
    now = combination.age == 1 if refreshed else True
    return {
        group: {
            k: jnp.where(now & _known(k, values), x.astype(jnp.float32), jnp.nan)
            if refreshed or k == "conflict"
            else x
            for k, x in values.items()
        }
        for group, values in mmp.diagnostics(combination).items()
    }


def _known(key: str, values: Mapping[str, jax.Array]) -> Any:
    return jnp.isfinite(values["cosine"]) if key == "conflict" else True


def make_program(
    config: Config,
    task: Task,
    *,
    plain: bool = False,
    placement: Placement = ONE_DEVICE,
) -> Program:
    """Builds the model, infers the groups and makes both steps.

    With `plain` the losses are summed before they are differentiated, by jax alone:
    what a method is timed against. With a mesh in `placement` states and batches are
    to lie on it as that says.
    """
    placement.check(config.batch_size)
    task = precise(task) if config.precision == "highest" else task
    method = method_of(config)
    model = task.make_model(nnx.Rngs(config.seed))
    graphdef, variables = nnx.split(model)
    params, rest = nnx.split_state(variables, nnx.Param, ...)
    model.eval()
    eval_graphdef = nnx.graphdef(model)

    def model_of(params: Any, rest: Any) -> Any:
        return nnx.merge(graphdef, params, rest, copy=True)

    rows = np.arange(config.batch_size)
    example = numbers(as_examples(task.data["train"]).take(rows))
    shapes = nnx.eval_shape(task.outputs, model, example)
    memory = method.memory(shapes)
    inputs = Inputs(rest, memory, example)
    way = gradients(
        config,
        task,
        method,
        model_of,
        (params, inputs),
        plain=plain,
        rows=functools.partial(placement.divided, leading=1),
    )
    look = probe_of(task, model_of)
    tx = optimizer(config)

    def begin(params: Any, seed: int) -> Any:
        """The first states; rules that draw get keys of their own run."""

        def seeded(path: Any, x: jax.Array) -> jax.Array:
            if jax.tree_util.keystr(path[-1:], simple=True) != "key_data":
                return x
            key = jax.random.wrap_key_data(x, impl="threefry2x32")
            return jax.random.key_data(jax.random.fold_in(key, seed))

        return jax.tree.map_with_path(seeded, (way.init(params), tx.init(params)))

    def updated(state: TrainState, batch: Batch) -> tuple[Combined, Any, Any]:
        combination, optimizer = state.opt_state
        inputs = Inputs(state.rest, state.memory, batch)
        found = way.of(combination, placement.gathered(state.params), inputs)
        gradient = placement.divided(found.gradient)
        return found, *tx.update(gradient, optimizer, state.params)

    def probe(state: TrainState, batch: Batch) -> mmp.Probe:
        _, updates, _ = updated(state, batch)
        inputs = Inputs(state.rest, state.memory, batch)
        return look(placement.gathered(state.params), inputs, update=updates)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        found, updates, optimizer = updated(state, batch)
        params = optax.apply_updates(state.params, updates)
        metrics = dict(found.seen.scores)
        for group, values in _of_this_step(found.state).items():
            for key in ("cosine", "conflict", "magnitude"):
                if key in values:
                    metrics[f"{group}/{key}"] = values[key]
            for k, name in enumerate(way.groups.groups[group]):
                metrics[f"{group}/norm/{name}"] = values["norms"][k]
                if "weights" in values:
                    share = values["weights"][k] / jnp.sum(values["weights"])
                    metrics[f"{group}/weight/{name}"] = share
        memory = method.advance(state.memory, state.params, found.objectives)
        after = TrainState(
            state.step + 1,
            params,
            method.steer(found.seen.rest, memory),
            (found.state, optimizer),
            memory,
            state.streak,
        )
        faults = faults_of(
            way.groups, found, state, after, placement=placement, at=where(state)
        )
        after = undone(state, after, faults.anything, config.ends_after)
        ended = jnp.array(False)
        if config.ends_after is not None:
            ended = after.streak >= config.ends_after
        return after, metrics | faults.metrics() | {ENDED: ended}

    def where(state: TrainState) -> TrainState:
        """The sharding of every leaf."""
        by_shape = {"params": state.params, "opt_state": state.opt_state}
        at: TrainState = placement.copied(state)
        return at._replace(**placement.state(by_shape))

    def placed(params: Any, rest: Any, opt_state: Any, memory: Any) -> TrainState:
        # Each a buffer of its own, for the step donates its state.
        step, streak = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        state = TrainState(step, params, rest, opt_state, memory, streak)
        put: TrainState = placement.put(state, where(state))
        return put

    first = placed(params, rest, begin(params, config.seed), memory)
    by_step = (where(first), placement.copied(0))
    compiled = placement.jit(step, by_step, donate_argnums=0)

    def tally_of(state: TrainState, batch: Batch) -> Tally:
        return Tally.of(jax.eval_shape(compiled, state, batch)[1])

    def logged(
        state: TrainState, tally: Any, batch: Batch
    ) -> tuple[TrainState, jax.Array]:
        # The compiled one, which `tally_of` has traced already.
        after, metrics = compiled(state, batch)
        taken = after.step != state.step
        return after, Tally.of(metrics).add(tally, metrics, taken)

    compiled_logged = placement.jit(logged, by_step, donate_argnums=0)

    def logged_anywhere(
        state: TrainState, tally: Any, batch: Batch
    ) -> tuple[TrainState, jax.Array]:
        if isinstance(tally, np.ndarray):  # of the host: one program for both
            tally = placement.put(tally, placement.copied(tally))
        after: tuple[TrainState, jax.Array] = compiled_logged(state, tally, batch)
        return after

    judged = evaluation(task, eval_graphdef, placement)

    def restart(seed: int, lr: float) -> TrainState:
        variables = nnx.state(task.make_model(nnx.Rngs(seed)))
        params, rest = nnx.split_state(variables, nnx.Param, ...)
        opt_state = optax.tree.set(begin(params, seed), peak=jnp.asarray(lr, float))
        # A memory of its own: the first step takes it.
        fresh = method.memory(shapes)
        return placed(params, rest, opt_state, fresh)

    def between_epochs(
        state: TrainState, run: Config, number: int, data: Mapping[str, Source]
    ) -> TrainState:
        assert method.between_epochs is not None
        start = restart(run.seed, run.lr).params
        epoch = Epoch(number, run, data, judged.one, judged.features, start)
        after: TrainState = method.between_epochs(state, epoch)
        moved: TrainState = placement.put(after, where(after))
        return moved

    return Program(
        way.groups,
        first,
        compiled,
        tally_of,
        logged_anywhere,
        jax.jit(jax.vmap(logged), donate_argnums=0),
        # A program of its own, so that the step is the same with it and without.
        placement.jit(probe),
        judged.one,
        judged.each,
        judged.features,
        restart,
        between_epochs if method.between_epochs else None,
    )
