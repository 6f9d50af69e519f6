"""A task of any model and any losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmpareto_jax.data import Source, Transform, as_examples, as_transform
from mmpareto_jax.models import Outputs
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._tasks.base import Task, check_splits
from mmpareto_jax.training._tasks.criteria import computed
from mmpareto_jax.training._tasks.wrapped import as_module

# Of a record, beside its measures.
_TAKEN = ("step", "split", "steps", "losses")


class Judge(NamedTuple):
    """A measure of a user's: what it computes, and which direction is better.

    Attributes:
      function: (outputs, batch) -> the value of every example [B], or a scalar.
      higher: whether more is better.
      percent: whether it is a share from 0 to 1, shown in %.
    """

    function: Callable[[Any, Batch], jax.Array]
    higher: bool
    percent: bool


def higher_is_better(
    function: Callable[[Any, Batch], jax.Array], *, percent: bool = False
) -> Judge:
    """A measure for ``task``, of which more is better.

    Args:
      function: (outputs, batch) -> the value of every example [B], or a scalar, which
        counts as that of each. The measure is the mean over examples.
      percent: whether it is a share from 0 to 1, shown in %.

    Returns:
      The measure.

    Example:
      >>> from mmpareto_jax.training import higher_is_better
      >>> right = higher_is_better(
      ...     lambda logits, batch: logits.argmax(-1) == batch["label"], percent=True
      ... )
      >>> right.higher
      True
    """
    return _judge("higher_is_better", function, True, percent)


def lower_is_better(
    function: Callable[[Any, Batch], jax.Array], *, percent: bool = False
) -> Judge:
    """A measure for ``task``, of which less is better.

    Args:
      function: as of ``higher_is_better``.
      percent: whether it is a share from 0 to 1, shown in %.

    Returns:
      The measure.

    Example:
      >>> from mmpareto_jax.training import lower_is_better
      >>> lower_is_better(lambda y, batch: abs(y - batch["y"])).higher
      False
    """
    return _judge("lower_is_better", function, False, percent)


def _judge(caller: str, function: Any, higher: bool, percent: bool) -> Judge:
    if not callable(function):
        raise TypeError(f"{caller}: expected a function, got {type(function).__name__}")
    return Judge(function, higher, percent)


def task(
    model: Any,
    losses: Mapping[str, Callable[[Any, Batch], jax.Array]],
    data: Mapping[str, Source],
    measures: Mapping[str, Judge] | None = None,
    *,
    name: str = "own",
    forward: Callable[[Any, Batch], Any] = lambda model, batch: model(batch),
    transform: Transform | Sequence[Any] | None = None,
    eval_batch: int = 200,
) -> Task:
    """A task of any model and any losses.

    Args:
      model: a function of ``nnx.Rngs`` that makes an NNX module (a class whose only
        argument is ``rngs`` is one); a Linen module; or a pair (init, apply) of plain
        functions, key -> parameters and (parameters, ...) -> outputs.
      losses: objective -> (outputs, batch) -> the loss of every example [B], or a
        scalar. What is differentiated is the mean over the batch.
      data: "train", "validation" and "test" -> what ``data.as_examples`` takes.
      measures: name -> ``higher_is_better(...)`` or ``lower_is_better(...)``; the first
        one chooses checkpoints and learning rates. None: the sum of the losses does.
      name: what the task is called.
      forward: (model, batch) -> outputs, of any structure, which losses and measures
        see; by default the model is called with the batch. A Linen module, or plain
        functions, are told by ``model.training`` whether they train: give it to Dropout
        and BatchNorm.
      transform: for training examples: grain transforms, or (batch, generators) ->
        batch; on the host.
      eval_batch: examples of a batch in evaluation, at most.

    Returns:
      The task.

    Raises:
      ValueError: a split is missing or unlike the others, or a measure has the name of
        something else in the records ("loss/...", "step", ...).
      TypeError: a model of another kind, no loss, or a measure without a direction.

    Example:
      >>> import numpy as np
      >>> from flax import nnx
      >>> from mmpareto_jax import training
      >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
      >>> arrays = {"x": x, "up": x[:, 0] ** 2, "down": -x[:, 0]}
      >>> data = dict.fromkeys(("train", "validation", "test"), arrays)
      >>> losses = {
      ...     "up": lambda y, batch: (y[:, 0] - batch["up"]) ** 2,
      ...     "down": lambda y, batch: (y[:, 1] - batch["down"]) ** 2,
      ... }
      >>> own = training.task(
      ...     lambda rngs: nnx.Linear(1, 2, rngs=rngs), losses, data,
      ...     forward=lambda model, batch: model(batch["x"]),
      ... )
      >>> own.measures[0].title
      'sum of the losses'
    """
    check_splits(name, data)
    if not isinstance(losses, Mapping) or not losses:
        raise TypeError(
            f"task {name}: losses: expected name -> function, at least one, got "
            f"{losses!r}"
        )
    for what, function in {**losses, "forward": forward}.items():
        if not callable(function):
            raise TypeError(
                f"task {name}: {what}: expected a function, got "
                f"{type(function).__name__}"
            )
    if not isinstance(measures, Mapping | None):
        raise TypeError(
            f"task {name}: measures: expected name -> measure, got "
            f"{type(measures).__name__}"
        )
    judges = dict(measures or {})
    for measure, judge in judges.items():
        if measure.startswith("loss/") or measure in _TAKEN:
            raise ValueError(
                f"task {name}: measures: {measure} is the name of something else"
            )
        if not isinstance(judge, Judge):
            raise TypeError(
                f"task {name}: measures: {measure}: expected higher_is_better(...) or "
                f"lower_is_better(...), got {type(judge).__name__}"
            )
    example = as_examples(data["train"]).take(np.arange(1))

    def outputs(model: Any, batch: Batch) -> Outputs:
        found = forward(model, batch)
        return Outputs(dict.fromkeys(losses, found), {}, {})

    return Task(
        name,
        as_module(model, lambda made: forward(made, example)),
        outputs,
        data,
        criteria={
            objective: computed(f"losses: {objective}", f, score="loss", kinds={})
            for objective, f in losses.items()
        },
        titles={objective: objective for objective in losses},
        main=tuple(losses),
        judged={
            measure: computed(
                f"measures: {measure}",
                judge.function,
                score="value",
                kinds={"value": (measure, judge.higher, judge.percent)},
            )
            for measure, judge in judges.items()
        },
        eval_batch=eval_batch,
        # What is a scalar for each batch heeds no mask.
        fill=False,
        transform=as_transform(transform),
    )
