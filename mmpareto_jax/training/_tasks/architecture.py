"""The models that configs ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models import (
    MLP,
    MMTM,
    MTAN,
    BottleneckTokens,
    CentralNet,
    ConcatFusion,
    CosineFusion,
    CrossStitch,
    DenseHead,
    FiLMFusion,
    Fusion,
    GatedFusion,
    HardSharing,
    Interaction,
    LeNet,
    MultimodalClassifier,
    MultitaskModel,
    PatchTransformer,
    ResNet18,
    SegNet,
    Separate,
    Sharing,
    SmallCNN,
    StagedEncoder,
    SumFusion,
    TemporalCNN,
)
from mmpareto_jax.training._config import Config

HEADS: dict[str, Callable[..., Fusion]] = {
    "concat": ConcatFusion,
    "sum": SumFusion,
    "film": FiLMFusion,
    "gated": GatedFusion,
    "cosine": CosineFusion,
}
INTERACTIONS: dict[str, Callable[..., Interaction]] = {
    "mmtm": MMTM,
    "central": CentralNet,
    "bottleneck": BottleneckTokens,
}
# What those that ask for a width call it.
_WIDTH: dict[str, str] = {"gated": "hidden", "central": "features"}
# A function that makes a trunk, and the number of tasks -> what they share.
SHARINGS: dict[str, Callable[..., Sharing]] = {
    "hard": lambda trunk, tasks, **_: HardSharing(trunk(), tasks),
    "cross-stitch": lambda trunk, tasks, **_: CrossStitch(trunk, tasks),
    "mtan": lambda trunk, tasks, **more: MTAN(trunk(), tasks, **more),
    "separate": lambda trunk, tasks, **_: Separate(trunk, tasks),
}


def check_fusion(fusion: Any) -> None:
    """Refuses the name of no fusion.

    Raises:
      ValueError: names those that there are.
    """
    if fusion not in HEADS and fusion not in INTERACTIONS:
        known = ", ".join([*HEADS, *INTERACTIONS])
        raise ValueError(f"fusion: expected one of {known}, got {fusion!r:.60}")


def make_classifier(
    encoders: Mapping[str, Callable[[nnx.Rngs], Any]],
    fusion: str,
    width: int,
    num_classes: int,
    rngs: nnx.Rngs,
) -> MultimodalClassifier:
    """Encoders that meet in a fusion.

    Args:
      encoders: modality -> rngs -> its encoder.
      fusion: the fusion or interaction, by the name of ``--fusion``.
      width: of what a fusion has between the features and the logits.
      num_classes: number of logits.
      rngs: gives the keys.

    Raises:
      ValueError: there is no such fusion.
    """
    check_fusion(fusion)
    made = {name: make(rngs) for name, make in encoders.items()}
    staged = list(made.values())
    head: Fusion | None = None
    interaction: Interaction | None = None
    more = {_WIDTH[fusion]: width} if fusion in _WIDTH else {}
    if fusion in INTERACTIONS:  # the model's own head follows it
        interaction = INTERACTIONS[fusion](staged, rngs=rngs, **more)
    else:
        widths = [encoder.out_features for encoder in staged]
        head = HEADS[fusion](widths, num_classes, rngs=rngs, **more)
    return MultimodalClassifier(
        num_classes, made, fusion=head, interaction=interaction, rngs=rngs
    )


def make_multitask_model(
    config: Config,
    sharing: str,
    shape: tuple[int, ...],
    tasks: Mapping[str, int],
    *,
    dense: bool,
    rngs: nnx.Rngs,
) -> MultitaskModel:
    """The multi-task model that a config asks for.

    Args:
      config: trunk, width and dtype.
      sharing: by the name of ``--sharing``.
      shape: [H, W, C] of an image.
      tasks: task -> width of its prediction.
      dense: whether there is a prediction for every pixel.
      rngs: gives the keys.
    """
    if dense != (config.encoder == "segnet") and config.encoder != "default":
        per = "every pixel: --encoder segnet" if dense else "the image: not segnet"
        raise ValueError(f"encoder: {config.task} has a prediction for {per}")

    def make_trunk() -> StagedEncoder:
        return _trunk(config, shape, dense, rngs)

    dtype = _dtype(config)
    shared = SHARINGS[sharing](make_trunk, len(tasks), dtype=dtype, rngs=rngs)
    head = DenseHead if dense else nnx.Linear
    width = shared.out_features
    return MultitaskModel(
        shared, {name: head(width, out, rngs=rngs) for name, out in tasks.items()}
    )


def _trunk(
    config: Config, shape: tuple[int, ...], dense: bool, rngs: nnx.Rngs
) -> StagedEncoder:
    dtype, width = _dtype(config), config.width
    if dense:
        stages = (width // 4, width // 2, width)
        return SegNet(shape[-1], stages, dtype=dtype, rngs=rngs)
    if config.encoder == "default":
        return LeNet(shape, (width // 4, width // 2), width, dtype=dtype, rngs=rngs)
    return make_encoder(config, shape, rngs)


def default_encoder(
    shape: tuple[int, ...], width: int, dtype: DTypeLike, rngs: nnx.Rngs
) -> StagedEncoder:
    """The encoder that fits examples of a shape.

    Args:
      shape: of an example: [F], features; [T, C], a series; [H, W, C], an image; or
        [T, H, W, C], frames.
      width: of the features, but for images of 64 pixels or more, whose are 512.
      dtype: of the computation.
      rngs: gives the keys.

    Raises:
      ValueError: another shape.
    """
    if not 1 <= len(shape) <= 4 or 0 in shape:
        expected = "[F], [T, C], [H, W, C] or [T, H, W, C]"
        raise ValueError(
            f"encoder: expected examples of shape {expected}, got {list(shape)}"
        )
    widths = (width // 4, width // 2, width)
    if len(shape) == 1:
        return MLP(shape[0], (width,) * 3, dtype=dtype, rngs=rngs)
    if len(shape) == 2:
        return TemporalCNN(shape[-1], widths, dtype=dtype, rngs=rngs)
    if max(shape[-3:-1]) < 64:
        return SmallCNN(shape[-1], widths, dtype=dtype, rngs=rngs)
    return ResNet18(shape[-1], dtype=dtype, rngs=rngs)


def make_encoder(
    config: Config, shape: tuple[int, ...], rngs: nnx.Rngs
) -> StagedEncoder:
    """The encoder that a config asks for; of an example of this shape."""
    dtype, width, kind = _dtype(config), config.width, config.encoder
    if kind == "default" and config.task == "arrays":
        return default_encoder(shape, width, dtype, rngs)
    if kind == "default":
        kind = "cnn" if config.task in ("av-digits", "colored-digits") else "resnet18"
    if len(shape) < 3 or (kind == "lenet" and len(shape) > 3):
        raise ValueError(
            f"encoder: {kind} is not for examples of shape {list(shape)}: "
            "--encoder default"
        )
    if kind == "resnet18":
        return ResNet18(shape[-1], dtype=dtype, rngs=rngs)
    if kind == "lenet":
        return LeNet(shape, (width // 4, width // 2), width, dtype=dtype, rngs=rngs)
    if kind == "segnet":
        raise ValueError("encoder: segnet is for predictions of every pixel")
    if kind == "cnn":
        widths = (width // 4, width // 2, width)
        return SmallCNN(shape[-1], widths, dtype=dtype, rngs=rngs)
    # Four by four patches of an image; of a large one, patches of 16.
    patch = tuple(max(1, n // 4) if n < 64 else 16 for n in shape[-3:-1])
    return PatchTransformer(
        shape, (patch[0], patch[1]), features=width, depth=3, dtype=dtype, rngs=rngs
    )


def _dtype(config: Config) -> Any:
    return jnp.bfloat16 if config.precision == "bf16" else jnp.float32
