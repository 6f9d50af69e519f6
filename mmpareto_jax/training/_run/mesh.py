"""The mesh that a person asks for."""

from __future__ import annotations

import math

import jax
from jax.sharding import AxisType, Mesh

AXES = ("data", "model")


def mesh_of(mesh: Mesh | str) -> Mesh:
    """A mesh whose axes are Auto: what is sent is the compiler's affair.

    Args:
      mesh: "auto", all devices along "data"; sizes of the axes, as "data=4,model=2"; or
        a mesh of these axes.

    Raises:
      ValueError: axes with other names, fewer devices than asked for, or a mesh without
        the devices of some of several processes.
    """
    if not isinstance(mesh, str | Mesh):
        raise TypeError(
            "mesh: expected auto, sizes as data=4,model=2, or a jax.sharding.Mesh, got "
            f"{type(mesh).__name__}"
        )
    if isinstance(mesh, str):
        mesh = _mesh(sizes_of(mesh) or {"data": jax.device_count()})
    if "data" not in mesh.shape or not set(mesh.shape) <= set(AXES):
        raise ValueError(
            f"mesh: expected the axes data and model, got {dict(mesh.shape)}"
        )
    processes = {device.process_index for device in mesh.devices.flat}
    if len(processes) < jax.process_count():
        raise ValueError(
            f"mesh: expected devices of all {jax.process_count()} processes, got "
            f"{dict(mesh.shape)} of {jax.device_count()} devices"
        )
    kinds = (AxisType.Auto,) * mesh.devices.ndim
    return Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)


def sizes_of(text: str) -> dict[str, int] | None:
    """Axis -> devices along it, of "data=4,model=2"; None: "auto".

    Raises:
      ValueError: it is neither.
    """
    if text == "auto":
        return None
    pairs = [part.strip().partition("=") for part in text.split(",")]
    sizes = {name: int(size) for name, _, size in pairs if size.isdecimal()}
    fits = len(sizes) == len(pairs) and set(sizes) <= set(AXES) and all(sizes.values())
    if not fits:
        raise ValueError(
            f"mesh: expected auto, or sizes as data=4,model=2, got {text!r}"
        )
    return {"data": 1} | sizes


def _mesh(sizes: dict[str, int]) -> Mesh:
    devices = jax.devices()
    needed = math.prod(sizes.values())
    if needed > len(devices):
        more = "; --device cpu, or JAX_NUM_CPU_DEVICES, makes as many"
        kind = devices[0].platform
        raise ValueError(
            f"mesh: expected at most the {len(devices)} devices ({kind}), got "
            f"{','.join(f'{k}={n}' for k, n in sizes.items())}"
            f"{more if kind == 'cpu' else ''}"
        )
    kinds = (AxisType.Auto,) * len(sizes)
    chosen = devices[:needed]
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), kinds, devices=chosen)
