"""Rendered rooms: what, how far and how it faces, for every pixel of a small image."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._features import standardise
from ._raycast import (
    Array,
    Hit,
    hit_box,
    hit_cylinder,
    hit_room,
    hit_sphere,
    pinhole_rays,
    turn,
)
from ._split import SPLITS, Split, check_number, check_request

SCENE_CLASSES = ("floor", "wall", "ceiling", "box", "sphere", "cylinder")
"""Names of the classes of ``segmentation``, in order."""

_FOV = np.deg2rad(62.0)
_SOLIDS = (3, 6)  # fewest and most that are tried
_CLEARANCE = 0.1  # metres between solids, and to walls
_DEFAULT_SIZE = {"train": 2000, "validation": 400, "test": 800}


@dataclass(frozen=True)
class Scenes:
    """Images of rooms with dense labels, in the conventions of NYUv2.

    Attributes:
      image: float32 ``[N, S, S, 3]``, standardised; rows from the top.
      segmentation: int32 ``[N, S, S]``, index of `SCENE_CLASSES`; -1: unlabelled.
      depth: float32 ``[N, S, S, 1]``, metres along the optical axis; 0: invalid.
      normal: float32 ``[N, S, S, 3]``, unit vectors x right, y up, z towards the
        viewer; zeros where the depth is invalid.
      instance: int32 ``[N, S, S]``, the surface, without gaps in its labels: floor,
        wall and ceiling 0 to 2, each solid a number from 3.
      focal: focal length in pixels; the optical axis meets the image's centre.
    """

    image: NDArray[np.float32]
    segmentation: NDArray[np.int32]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]
    instance: NDArray[np.int32]
    focal: float

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a model sees: image, segmentation, depth and normal."""
        names = ("image", "segmentation", "depth", "normal")
        return {name: getattr(self, name) for name in names}


def load_scenes(
    split: Split,
    *,
    num_examples: int | None = None,
    size: int = 32,
    seed: int = 0,
) -> Scenes:
    """Render rooms with boxes, spheres and cylinders, each scene a random one.

    A pinhole camera of 62 degrees stands in a room of random size, 1.2 to 1.7 m above
    the floor, turned by up to 40 degrees, tilted down by 4 to 20 and rolled by up to 4.
    Solids stand on the floor (some spheres hang) without touching each other. Colours
    are random for every surface, with checks of random contrast, under Lambert's law
    with one lamp and ambient light, and white noise of standard deviation 0.03: no
    label can be read off a colour. As with real sensors, labels are missing on some
    pixels along outlines and in a patch, and depth likewise on others. Example i has
    its own random stream for (seed, split, i): the first n examples are the same
    whatever ``num_examples`` is.

    Args:
      split: ``"train"``, ``"validation"`` or ``"test"``; no scene is in two.
      num_examples: N; by default 2000, 400, 800.
      size: S, height and width in pixels; at least 8.
      seed: Non-negative.

    Returns:
      The scenes.

    Raises:
      ValueError: When an argument is outside its range.

    Example:
      >>> scenes = load_scenes("test", num_examples=2)
      >>> scenes.image.shape, scenes.segmentation.shape
      ((2, 32, 32, 3), (2, 32, 32))
      >>> scenes.depth.shape, scenes.normal.shape
      ((2, 32, 32, 1), (2, 32, 32, 3))
      >>> [SCENE_CLASSES[k] for k in np.unique(scenes.segmentation) if k >= 0]
      ['floor', 'wall', 'ceiling', 'box', 'sphere', 'cylinder']
    """
    name = "load_scenes"
    count = check_request(name, split, num_examples, _DEFAULT_SIZE, seed)
    check_number(f"{name}: size", size)
    if size < 8:
        raise ValueError(f"{name}: size: expected at least 8 pixels, got {size}")
    shape = (count, size, size)
    image, normal = np.empty((2, *shape, 3), np.float32)
    depth = np.empty((*shape, 1), np.float32)
    segmentation, instance = np.empty((2, *shape), np.int32)
    rays = pinhole_rays(size, _FOV)
    stream = SPLITS.index(split)
    for i in range(count):
        rng = np.random.default_rng((seed, stream, 1 + i))
        camera = turn(*np.deg2rad(rng.uniform((-40, -20, -4), (40, -4, 4))))
        far, facing, surface, kinds, lit = _render(rng, camera, rays)
        unlabelled, invalid = (
            _gaps(rng, surface.reshape(size, size), share) for share in (0.25, 0.15)
        )
        seen = ~invalid[..., None]
        instance[i] = surface.reshape(size, size)
        segmentation[i] = np.where(unlabelled, -1, kinds[instance[i]])
        depth[i] = seen * far.reshape(size, size, 1)
        normal[i] = seen * facing.reshape(size, size, 3)
        noisy = lit.reshape(size, size, 3) + rng.normal(0.0, 0.03, (size, size, 3))
        image[i] = np.clip(noisy, 0.0, 1.0)
    return Scenes(
        image=standardise(image),
        segmentation=segmentation,
        depth=depth,
        normal=normal,
        instance=instance,
        focal=float(size / (2 * np.tan(_FOV / 2))),
    )


def _render(
    rng: np.random.Generator, camera: Array, camera_rays: Array
) -> tuple[Array, Array, NDArray[np.intp], NDArray[np.int32], Array]:
    """One scene: every pixel's depth, normal and surface; classes; every colour."""
    rays = camera_rays @ camera.T
    eye = np.array([0.0, rng.uniform(1.2, 1.7), 0.0])
    low = np.array([-rng.uniform(1.8, 3.5), 0.0, -rng.uniform(3.5, 6.0)])
    high = np.array([rng.uniform(1.8, 3.5), rng.uniform(2.3, 2.9), 1.5])
    depth, facing = hit_room(eye, rays, low, high)
    # Floors face up, ceilings down.
    surface = (1 - np.sign(facing[:, 1].round())).astype(np.intp)
    kinds = [0, 1, 2]
    for kind, solid in _solids(rng, camera, low, high):
        t, normal = solid(eye, rays)
        nearer = t < depth
        depth = np.where(nearer, t, depth)
        facing = np.where(nearer[:, None], normal, facing)
        surface = np.where(nearer, len(kinds), surface)
        kinds.append(kind)
    albedo = _albedo(rng, eye + depth[:, None] * rays, surface, len(kinds))
    lamp = rng.uniform(low, high) * (0.8, 0.0, 0.6) + (0.0, rng.uniform(1.8, 2.2), 0.0)
    towards = lamp - eye - depth[:, None] * rays
    distance = np.linalg.norm(towards, axis=1)
    lambert = np.maximum((facing * towards).sum(axis=1) / distance, 0.0)
    strength = rng.uniform(0.7, 1.1) / (1 + 0.05 * distance**2)
    light = rng.uniform(0.2, 0.45) + strength * lambert
    lit = albedo * light[:, None] * rng.uniform(0.85, 1.15, 3)
    return depth, facing @ camera, surface, np.array(kinds, np.int32), lit


def _albedo(
    rng: np.random.Generator, at: Array, surface: NDArray[np.intp], number: int
) -> Array:
    """Colours ``[P, 3]``: of each surface its own, with checks in space."""
    colours = rng.uniform(0.15, 0.95, (number, 3))[surface]
    period = rng.uniform(0.3, 1.0, number)[surface, None]
    contrast = rng.uniform(0.0, 0.3, number)[surface]
    # Off by a third: the floor would otherwise lie on an edge of the checks.
    checks = np.where(np.floor(at / period + 1 / 3).sum(axis=1) % 2 == 0, 1.0, -1.0)
    return np.asarray(colours * (1 + contrast * checks)[:, None])


def _solids(
    rng: np.random.Generator, camera: Array, low: Array, high: Array
) -> list[tuple[int, Callable[[Array, Array], Hit]]]:
    """Solids of random kinds in front of the camera: class, and where rays hit them."""
    ahead = float(np.arctan2(camera[0, 2], camera[2, 2]))
    found: list[tuple[int, Callable[[Array, Array], Hit]]] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(rng.integers(_SOLIDS[0], _SOLIDS[1] + 1)):
        kind = int(rng.integers(3, 6))
        width, depth, height = rng.uniform((0.2, 0.2, 0.2), (0.5, 0.5, 0.75))
        around = float(np.hypot(width, depth)) if kind == 3 else float(width)
        yaw, lift = rng.uniform(0, np.pi), max(rng.uniform(-1.5, 1.2), 0.0)
        for _ in range(20):
            angle = ahead + rng.uniform(-0.45, 0.45)
            far = rng.uniform(1.8, 5.0)
            x, z = -far * np.sin(angle), -far * np.cos(angle)
            margin = around + _CLEARANCE
            if not low[0] + margin < x < high[0] - margin or z < low[2] + margin:
                continue
            if all(np.hypot(x - a, z - b) > margin + r for a, b, r in taken):
                break
        else:
            continue
        taken.append((x, z, around))
        centre = np.array([x, height, z])
        if kind == 3:
            half = np.array([width, height, depth])
            solid = functools.partial(hit_box, centre=centre, half=half, yaw=yaw)
        elif kind == 4:
            centre[1] = width + lift
            solid = functools.partial(hit_sphere, centre=centre, radius=width)
        else:
            shape = {"centre": centre, "radius": width, "half": height}
            solid = functools.partial(hit_cylinder, **shape)
        found.append((kind, solid))
    return found


def _gaps(
    rng: np.random.Generator, surface: NDArray[np.intp], share: float
) -> NDArray[np.bool_]:
    """Pixels that a sensor or an annotator missed: a share of outlines, and a patch."""
    size = len(surface)
    outline = np.zeros(surface.shape, bool)
    for axis in (0, 1):
        step = np.diff(surface, axis=axis) != 0
        pad = [(0, 0), (0, 0)]
        for side in ((0, 1), (1, 0)):
            pad[axis] = side
            outline |= np.pad(step, pad)
    gaps = outline & (rng.random(surface.shape) < share)
    height, width = rng.integers(0, size // 8 + 1, 2)
    top, left = rng.integers(0, size - size // 8, 2)
    gaps[top : top + height, left : left + width] = True
    return gaps
