"""What a model is judged by: scores and features of all examples of a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpareto_jax.data import Source, as_examples
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._run.placement import Placement
from mmpareto_jax.training._run.state import TrainState
from mmpareto_jax.training._tasks.base import Task


class Evaluation(NamedTuple):
    """Compiled functions of a state and examples.

    Attributes:
      one: (state, examples) -> name -> float: losses and measures of all; NaN where a
        parameter is, which an accuracy need not show.
      each: (states of several runs, stacked; examples) -> what `one` gives, of each.
      features: (state, examples) -> encoder -> features [N, D] of all.
    """

    one: Callable[[TrainState, Source], dict[str, float]]
    each: Callable[[TrainState, Source], list[dict[str, float]]]
    features: Callable[[TrainState, Source], dict[str, np.ndarray]]


def evaluation(task: Task, graphdef: Any, placement: Placement) -> Evaluation:
    """How a task's model is evaluated.

    Args:
      task: its outputs and measures.
      graphdef: of the model in evaluation mode.
      placement: of states and batches.
    """

    def outputs_of(params: Any, rest: Any, examples: Batch) -> Any:
        whole = placement.gathered(params)
        model = nnx.merge(graphdef, whole, rest, copy=True)
        return task.outputs(model, examples)

    @placement.jit
    def sums_of_batch(params: Any, rest: Any, batch: Batch) -> Any:
        examples = _without_mask(batch)
        outputs = outputs_of(params, rest, examples)
        return task.sums(outputs, examples, batch["mask"])

    @placement.jit
    def spoiled(params: Any) -> jax.Array:
        is_nan = [jnp.isnan(x).any() for x in jax.tree.leaves(params)]
        return jnp.stack([*is_nan, jnp.array(False)]).any()

    def one(state: TrainState, source: Source) -> dict[str, float]:
        batches, bad = held_out(source), spoiled(state.params)
        totals = [sums_of_batch(state.params, state.rest, x) for x in batches]
        return scores(totals, bad)

    sums_of_each = jax.jit(jax.vmap(sums_of_batch, (0, 0, None)))
    spoiled_each = jax.jit(jax.vmap(spoiled))

    def each(states: TrainState, source: Source) -> list[dict[str, float]]:
        batches = held_out(source)
        totals = jax.device_get(
            [sums_of_each(states.params, states.rest, x) for x in batches]
        )
        bad = jax.device_get(spoiled_each(states.params))
        return [
            scores(jax.tree.map(lambda x, i=i: x[i], totals), bad[i])
            for i in range(len(states.step))
        ]

    def scores(totals: list[Any], bad: Any) -> dict[str, float]:
        # In float64: a count of pixels exceeds what float32 can count.
        added = jax.tree.map(
            lambda *x: sum(np.asarray(v, np.float64) for v in x), *totals
        )
        found = {k: float(x) for k, x in sorted(task.scores(added).items())}
        found |= task.overall(found)
        return dict.fromkeys(found, math.nan) if bad else found

    def held_out(source: Source) -> Iterator[dict[str, Any]]:
        return placement.held_out(source, task.eval_batch, task.fill)

    @placement.jit
    def features_of_batch(params: Any, rest: Any, batch: Batch) -> dict[str, jax.Array]:
        found: dict[str, jax.Array]
        found = outputs_of(params, rest, _without_mask(batch)).features
        return found

    def features(state: TrainState, source: Source) -> dict[str, np.ndarray]:
        size = len(as_examples(source))
        found = [
            features_of_batch(state.params, state.rest, x) for x in held_out(source)
        ]
        return {k: np.concatenate([x[k] for x in found])[:size] for k in found[0]}

    return Evaluation(one, each, features)


def _without_mask(batch: Batch) -> dict[str, Any]:
    """As training has it."""
    return {name: x for name, x in batch.items() if name != "mask"}
