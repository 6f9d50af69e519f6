"""Tasks of anything: what the built-in ones are made by, and a user's own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpareto_jax.data import (
    Examples,
    Source,
    Transform,
    as_examples,
    as_transform,
)
from mmpareto_jax.models import Outputs
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._tasks.architecture import default_encoder, make_classifier
from mmpareto_jax.training._tasks.base import SPLITS, Task
from mmpareto_jax.training._tasks.criteria import computed, labels
from mmpareto_jax.training._tasks.wrapped import as_module, called_with

# Of a record, beside its measures.
_TAKEN = ("step", "split", "steps", "losses")

Read = Callable[[str, jax.Array], jax.Array]


def classification(
    data: Mapping[str, Source],
    *,
    name: str = "own",
    encoders: Mapping[str, Callable[[nnx.Rngs], Any]] | None = None,
    fusion: str = "concat",
    width: int = 64,
    num_classes: int | None = None,
    read: Read = lambda _, x: x,
    transform: Transform | Sequence[Any] | None = None,
    eval_batch: int = 200,
) -> Task:
    """A task of several modalities and one label.

    The model is a ``models.MultimodalClassifier``: an encoder and a head for each
    modality, and a joint head on all of them. Its objectives are "joint" and the
    modalities; each is judged by its accuracy, the joint one first.

    Args:
      data: "train", "validation" and "test" -> what ``data.as_examples`` takes, with
        "label" (integers [N] from 0) and an array [N, ...] for each modality.
      name: what the task is called.
      encoders: modality -> ``nnx.Rngs`` -> a module that maps [B, ...] to features
        [B, D] and has ``out_features`` (a ``models.StagedEncoder`` for fusions that
        meet between stages). By default, by the shape of an example: an MLP of [F], a
        temporal CNN of [T, C], a small CNN or a ResNet-18 of images.
      fusion: by the name of ``--fusion``.
      width: of the default encoders' features.
      num_classes: by default one more than the largest label of arrays.
      read: (modality, batch [B, ...]) -> what its encoder takes, on the device.
      transform: for training examples: grain transforms, or (batch, generators) ->
        batch; on the host.
      eval_batch: examples of a batch in evaluation, at most.

    Returns:
      The task.

    Raises:
      ValueError: a split or "label" is missing, no modality, splits with different
        modalities, labels that are not integers from 0 to the number of classes − 1, an
        encoder is missing or of no modality, or an unknown fusion.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax import training
      >>> def arrays(n):
      ...     return {"gyro": np.zeros((n, 50, 3), np.float32),
      ...             "heart": np.zeros((n, 8), np.float32), "label": np.arange(n) % 4}
      >>> data = {"train": arrays(80), "validation": arrays(20), "test": arrays(20)}
      >>> task = training.classification(data, name="watch")
      >>> [measure.name for measure in task.measures]
      ['accuracy/joint', 'accuracy/gyro', 'accuracy/heart']
    """
    _check_splits(name, data)
    # Of one example at least: `Task` compares the splits.
    shapes = shapes_of(data["train"], read)
    classes = _classes(name, data, tuple(shapes), num_classes)
    given: Mapping[str, Callable[[nnx.Rngs], Any]] = encoders or {
        modality: functools.partial(_default_encoder, shape, width)
        for modality, shape in shapes.items()
    }
    if set(given) != set(shapes):
        raise ValueError(
            f"task {name}: encoders: expected one for each of {list(shapes)}, "
            f"got {list(given)}"
        )
    makers = {
        modality: _encoder_of(name, modality, given[modality]) for modality in shapes
    }

    def make_model(rngs: nnx.Rngs) -> nnx.Module:
        return make_classifier(makers, fusion, width, classes, rngs)

    def outputs(model: Any, batch: Batch, detach: bool = False) -> Outputs:
        inputs = {modality: read(modality, batch[modality]) for modality in shapes}
        found: Outputs = model.outputs(inputs, detach_unimodal=detach)
        return found

    titles = {"joint": "multimodal"} | {modality: modality for modality in shapes}
    return Task(
        name,
        make_model,
        outputs,
        {split: _labelled(name, split, x, classes) for split, x in data.items()},
        criteria={objective: labels("label") for objective in titles},
        titles=titles,
        main=("joint",),
        eval_batch=eval_batch,
        transform=as_transform(transform),
        detached=functools.partial(outputs, detach=True),
        fusion=fusion,
    )


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
    return Judge(function, True, percent)


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
    return Judge(function, False, percent)


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
    _check_splits(name, data)
    if not isinstance(losses, Mapping) or not losses:
        raise TypeError(
            f"task {name}: losses: expected name -> function, at least one, got "
            f"{losses!r}"
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


def shapes_of(
    source: Source, read: Read = lambda _, x: x
) -> dict[str, tuple[int, ...]]:
    """Modality -> the shape of an example as its encoder sees it."""
    example = as_examples(source).take(np.arange(1))

    def shape(name: str, x: Any) -> tuple[int, ...]:
        found = jax.eval_shape(functools.partial(read, name), x)
        return tuple(found.shape[1:])

    return {name: shape(name, x) for name, x in example.items() if name != "label"}


@dataclasses.dataclass(frozen=True)
class _Labelled:
    """Examples whose labels are looked at when they are taken."""

    where: str
    examples: Examples
    num_classes: int

    def __len__(self) -> int:
        return len(self.examples)

    def take(
        self, rows: np.ndarray, *, seed: int = 0, epoch: int = 0
    ) -> dict[str, np.ndarray]:
        batch = self.examples.take(rows, seed=seed, epoch=epoch)
        _check_labels(self.where, batch["label"], self.num_classes)
        return batch


def _labelled(name: str, split: str, source: Source, num_classes: int) -> Source:
    """The source, of which arrays are known already."""
    if isinstance(source, Mapping):
        return source
    where = f"task {name}: data: {split}"
    return _Labelled(where, as_examples(source), num_classes)


def _check_labels(where: str, label: np.ndarray, num_classes: int | None) -> None:
    if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(
            f"{where}: label: expected integers [N], got {label.dtype} "
            f"{list(label.shape)}"
        )
    least, most = int(label.min()), int(label.max())
    if least < 0 or (num_classes is not None and most >= num_classes):
        raise ValueError(
            f"{where}: label: expected 0 to {(num_classes or most + 1) - 1}, got "
            f"{least} to {most}"
        )


def _encoder_of(
    name: str, modality: str, make: Callable[[nnx.Rngs], Any]
) -> Callable[[nnx.Rngs], Any]:
    """The encoder that is made, once it is known to be one."""
    if isinstance(make, nnx.Module) or not callable(make):
        raise TypeError(
            f"task {name}: encoders: {modality}: expected a function of nnx.Rngs that "
            f"makes a module, got {type(make).__name__}"
        )

    def made(rngs: nnx.Rngs) -> Any:
        encoder = called_with(make, rngs)
        if not hasattr(encoder, "out_features"):
            raise TypeError(
                f"task {name}: encoders: {modality}: expected a module with "
                f"out_features, got {type(encoder).__name__}"
            )
        return encoder

    return made


def _default_encoder(shape: tuple[int, ...], width: int, rngs: nnx.Rngs) -> Any:
    return default_encoder(shape, width, jnp.float32, rngs)


def _check_splits(name: str, data: Mapping[str, Source]) -> None:
    if not isinstance(data, Mapping) or set(data) != set(SPLITS):
        found = list(data) if isinstance(data, Mapping) else type(data).__name__
        raise ValueError(
            f"task {name}: data: expected {', '.join(SPLITS)} -> examples, got "
            f"{found}; data.random_splits makes the three of one"
        )


def _classes(
    name: str,
    data: Mapping[str, Source],
    modalities: tuple[str, ...],
    num_classes: int | None,
) -> int:
    """The number of classes, once what is there fits together."""
    largest = -1
    for split, source in data.items():
        example = as_examples(source).take(np.arange(1))
        found = set(example)
        if found != {*modalities, "label"}:
            raise ValueError(
                f"task {name}: data: {split}: expected label and {list(modalities)}, "
                f"got {sorted(found)}"
            )
        if isinstance(source, Mapping):
            label = np.asarray(source["label"])
            _check_labels(f"task {name}: data: {split}", label, num_classes)
            largest = max(largest, int(label.max()))
        elif num_classes is None:
            raise ValueError(
                f"task {name}: num_classes: expected a number, since {split} is not "
                "made of arrays"
            )
    if not modalities:
        raise ValueError(f"task {name}: data: expected a modality beside label")
    return num_classes or largest + 1
