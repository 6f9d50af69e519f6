"""A task of several modalities and one label."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpareto_jax.data import Source, Transform, as_examples, as_transform
from mmpareto_jax.models import Outputs
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._tasks.architecture import (
    check_fusion,
    default_encoder,
    make_classifier,
)
from mmpareto_jax.training._tasks.base import Task, check_splits
from mmpareto_jax.training._tasks.criteria import labels
from mmpareto_jax.training._tasks.labels import check_labels, labelled
from mmpareto_jax.training._tasks.wrapped import called_with

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
      TypeError: an argument is of another type.
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
    check_splits(name, data)
    check_fusion(fusion)
    for what, number in (("width", width), ("num_classes", num_classes)):
        if number is not None and not isinstance(number, int):
            raise TypeError(
                f"task {name}: {what}: expected an integer, got {number!r:.60}"
            )
    if width < 4:
        raise ValueError(f"task {name}: width: expected at least 4, got {width}")
    if not callable(read) or not isinstance(encoders, Mapping | None):
        raise TypeError(
            f"task {name}: expected a function to read by, and modality -> encoder, "
            f"got {type(read).__name__} and {type(encoders).__name__}"
        )
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
        {split: labelled(name, split, x, classes) for split, x in data.items()},
        criteria={objective: labels("label") for objective in titles},
        titles=titles,
        main=("joint",),
        eval_batch=eval_batch,
        transform=as_transform(transform),
        detached=functools.partial(outputs, detach=True),
        fusion=fusion,
    )


def shapes_of(
    source: Source, read: Read = lambda _, x: x
) -> dict[str, tuple[int, ...]]:
    """Modality -> the shape of an example as its encoder sees it."""
    example = as_examples(source).take(np.arange(1))

    def shape(name: str, x: Any) -> tuple[int, ...]:
        if np.asarray(x).dtype.kind not in "biuf" and x.dtype != jnp.bfloat16:
            raise TypeError(f"data: {name}: expected real numbers, got {x.dtype}")
        found = jax.eval_shape(functools.partial(read, name), x)
        return tuple(found.shape[1:])

    return {name: shape(name, x) for name, x in example.items() if name != "label"}


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
            check_labels(f"task {name}: data: {split}", label, num_classes)
            largest = max(largest, int(label.max()))
        elif num_classes is None:
            raise ValueError(
                f"task {name}: num_classes: expected a number, since {split} is not "
                "made of arrays"
            )
    if not modalities:
        raise ValueError(f"task {name}: data: expected a modality beside label")
    return num_classes or largest + 1
