"""Exchange of parameters with PyTorch, by name, without importing it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from mmpareto_jax.models._resnet import ResNet18
from mmpareto_jax.models._weights import read_weights

_Path: TypeAlias = tuple[Any, ...]  # attribute names and list indices
_FILTER = (nnx.Param, nnx.BatchStat)

# Our name of a module -> the official AVClassifier's. Every other module of the tree
# has the same name on both sides, and list indices are the same too.
_MODULES = {
    "audio_encoder": "audio_net",
    "visual_encoder": "visual_net",
    "fusion.linear": "head",
    "audio_head": "head_audio",
    "visual_head": "head_video",
}
# Flax's name of a leaf -> torch's (`bias` is `bias`).
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# Axes of a kernel in torch's order, by its rank: [I, O] -> [O, I] and
# [H, W, I, O] -> [O, I, H, W].
_KERNEL_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}


def _axes(path: _Path, ndim: int) -> tuple[int, ...]:
    """The axes of our array in torch's order."""
    identity = tuple(range(ndim))
    return _KERNEL_AXES.get(ndim, identity) if path[-1] == "kernel" else identity


def _torch_name(path: _Path) -> str:
    """The torch name of the variable at `path` of the module tree."""
    *modules, leaf = (str(part) for part in path)
    prefix = ".".join(modules)
    for ours, theirs in _MODULES.items():
        if prefix == ours or prefix.startswith(f"{ours}."):
            prefix = theirs + prefix.removeprefix(ours)
            break
    name = _LEAVES.get(leaf, leaf)
    return f"{prefix}.{name}" if prefix else name


def _named(state: nnx.State[Any, Any]) -> dict[str, tuple[_Path, nnx.Variable[Any]]]:
    """Torch name -> (path, variable) of everything in `state`."""
    return {
        _torch_name(path): (path, variable)
        for path, variable in nnx.to_flat_state(state)
    }


def to_torch(model: nnx.Module) -> dict[str, np.ndarray]:
    """Parameters and BatchNorm statistics under their PyTorch names and layouts.

    Convolutions become [O, I, H, W], linear maps [O, I]. An `AVClassifier` gets the
    names of the official one (`audio_net.conv1.weight`, `visual_net.layer1.0.bn1.bias`,
    `head.weight`, `head_audio.bias`, ...), a `ResNet18` those of torchvision. The
    values are copied as they are, the running variance too, although the two
    frameworks mean slightly different things by it (see `ResNet18`).

    Args:
        model: any module of `mmpareto_jax.models`.

    Returns:
        Name to contiguous array, in the type of the variable. In torch:
        `net.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})`.

    Example:
        >>> from flax import nnx
        >>> from mmpareto_jax.models import ResNet18, to_torch
        >>> arrays = to_torch(ResNet18(1, rngs=nnx.Rngs(0)))
        >>> arrays["conv1.weight"].shape
        (64, 1, 7, 7)
        >>> sorted(name for name in arrays if name.startswith("layer2.0.downsample"))
        ['layer2.0.downsample.0.weight', 'layer2.0.downsample.1.bias',
         'layer2.0.downsample.1.running_mean', 'layer2.0.downsample.1.running_var',
         'layer2.0.downsample.1.weight']
    """
    arrays = {}
    for name, (path, variable) in _named(nnx.state(model, _FILTER)).items():
        value = np.asarray(variable.get_value())
        arrays[name] = value.transpose(_axes(path, value.ndim)).copy(order="C")
    return arrays


def load_torch(
    model: nnx.Module,
    arrays: Mapping[str, ArrayLike] | str | Path,
    *,
    strict: bool = True,
) -> None:
    """Copy a PyTorch state dict into `model`, in place.

    The inverse of `to_torch`, with the same names and layouts; values are cast to the
    types that the model has. `num_batches_tracked` is ignored, a leading `module.`
    (DataParallel) is dropped, and so is the classifier `fc.*` of a torchvision ResNet
    when `model` is a `ResNet18`. Nothing is written if anything is wrong.

    Call it before the parameters are placed on several devices.

    Args:
        model: any module of `mmpareto_jax.models`.
        arrays: torch name to array, as in `{k: v.numpy() for k, v in
            net.state_dict().items()}`; or a `.safetensors` or `.npz` file of them.
            Files of `torch.save` can run anything when they are opened, and are
            refused.
        strict: whether missing and unexpected names are errors. If not, missing ones
            keep their value and unexpected ones are ignored; a shape mismatch is an
            error all the same.

    Raises:
        ValueError: listing every missing name, unexpected name and shape mismatch; or a
            file is of another kind, or damaged.
        ImportError: of a `.safetensors` file, where safetensors is not installed.

    Example:
        >>> from flax import nnx
        >>> from mmpareto_jax.models import ConcatFusion, load_torch, to_torch
        >>> fusion = ConcatFusion((2, 1), num_classes=2, rngs=nnx.Rngs(0))
        >>> load_torch(fusion, {
        ...     "linear.weight": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        ...     "linear.bias": [0.0, 1.0],
        ... })
        >>> fusion.linear.kernel[...]
        Array([[1., 4.],
               [2., 5.],
               [3., 6.]], dtype=float32)
    """
    if isinstance(arrays, str | Path):
        arrays = read_weights(arrays)
    if not (isinstance(arrays, Mapping) and isinstance(model, nnx.Module)):
        raise TypeError(
            "load_torch: expected a flax.nnx.Module, and name -> array or a path, got "
            f"{type(model).__name__} and {type(arrays).__name__}"
        )
    given = {
        name.removeprefix("module."): np.asarray(value)
        for name, value in arrays.items()
        if not name.endswith("num_batches_tracked")
    }
    if isinstance(model, ResNet18):
        given = {k: v for k, v in given.items() if not k.startswith("fc.")}
    state = nnx.state(model, _FILTER)
    variables = _named(state)

    values = {}
    mismatches = []
    for name in sorted(given.keys() & variables.keys()):
        path, variable = variables[name]
        ours = variable.get_value()
        axes = _axes(path, ours.ndim)
        expected = tuple(ours.shape[axis] for axis in axes)
        if given[name].shape != expected:
            mismatches.append(f"{name} (expected {expected}, got {given[name].shape})")
        else:
            array = given[name].transpose(np.argsort(axes))
            values[name] = jnp.asarray(array, dtype=ours.dtype)

    problems = {"shape mismatches": mismatches}
    if strict:
        problems["missing"] = sorted(variables.keys() - given.keys())
        problems["unexpected"] = sorted(given.keys() - variables.keys())
    if any(problems.values()):
        raise ValueError(_message(model, problems))

    for name, value in values.items():
        variables[name][1].set_value(value)
    nnx.update(model, state)


def _message(model: nnx.Module, problems: Mapping[str, Sequence[str]]) -> str:
    """One line per kind of problem, naming everything."""
    lines = [
        f"  {kind}: {', '.join(names)}" for kind, names in problems.items() if names
    ]
    what = f"load_torch: arrays do not fit {type(model).__name__}:"
    return "\n".join([what, *lines])
