"""Where rays meet a room and the solids that stand in it.

All rays start at one point. A hit is a pair: t ``[P]``, in lengths of the ray and inf
where it misses, and the outward unit normal ``[P, 3]`` (any value where it misses).
Coordinates are x right, y up, z towards the viewer, metres.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Hit = tuple[Array, Array]


def pinhole_rays(size: int, fov: float) -> Array:
    """Rays through the centres of the pixels of a square image.

    Args:
      size: S, pixels.
      fov: field of view from edge to edge, radians.

    Returns:
      ``[S * S, 3]``, row by row from the top left, each (x, y, -1): t is the distance
      along the optical axis, as a depth camera gives it, and not along the ray.

    Example:
      >>> pinhole_rays(2, np.pi / 2)[0].round(6).tolist()
      [-0.5, 0.5, -1.0]
    """
    edge = np.tan(fov / 2) * ((2 * np.arange(size) + 1) / size - 1)
    x, y = np.meshgrid(edge, -edge)
    return np.stack([x, y, np.full_like(x, -1.0)], axis=-1).reshape(-1, 3)


def turn(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """Rotation ``[3, 3]`` of a camera: roll about z, then pitch about x, yaw about y.

    Positive angles turn left, up and counter-clockwise as the camera sees itself.

    Example:
      >>> (turn(np.pi / 2) @ [0.0, 0.0, -1.0]).round(6).tolist()
      [-1.0, 0.0, -0.0]
    """
    (cy, cp, cr), (sy, sp, sr) = (f([yaw, pitch, roll]) for f in (np.cos, np.sin))
    about_y = np.array([(cy, 0, sy), (0, 1, 0), (-sy, 0, cy)])
    about_x = np.array([(1, 0, 0), (0, cp, -sp), (0, sp, cp)])
    about_z = np.array([(cr, -sr, 0), (sr, cr, 0), (0, 0, 1)])
    return np.asarray(about_y @ about_x @ about_z)


def hit_room(origin: Array, rays: Array, low: Array, high: Array) -> Hit:
    """An axis-aligned room, seen from inside; normals point into it.

    Args:
      origin: ``[3]``, in the room.
      rays: ``[P, 3]``.
      low: ``[3]``, corner of the smallest coordinates.
      high: ``[3]``, corner of the largest.
    """
    leaves = _slabs(origin, rays, low, high)[1]
    axis = leaves.argmin(axis=1)
    return leaves.min(axis=1), -_axis_normal(rays, axis)


def hit_box(origin: Array, rays: Array, centre: Array, half: Array, yaw: float) -> Hit:
    """A box turned about the vertical, seen from outside.

    Args:
      origin: ``[3]``.
      rays: ``[P, 3]``.
      centre: ``[3]``.
      half: ``[3]``, half its edges.
      yaw: radians.
    """
    own = turn(yaw)
    local = rays @ own
    enters, leaves = _slabs((origin - centre) @ own, local, -half, half)
    axis = enters.argmax(axis=1)
    t = enters.max(axis=1)
    missed = (t > leaves.min(axis=1)) | (t <= 0)
    return np.where(missed, np.inf, t), -_axis_normal(local, axis) @ own.T


def hit_sphere(origin: Array, rays: Array, centre: Array, radius: float) -> Hit:
    """A sphere, seen from outside.

    Args:
      origin: ``[3]``.
      rays: ``[P, 3]``.
      centre: ``[3]``.
      radius: metres.
    """
    start = origin - centre
    t = _first_root(
        (rays**2).sum(axis=1), rays @ start, float(start @ start) - radius**2
    )
    return t, (start + _reach(t)[:, None] * rays) / radius


def hit_cylinder(
    origin: Array, rays: Array, centre: Array, radius: float, half: float
) -> Hit:
    """An upright cylinder and its flat top, seen from outside and not from below.

    Args:
      origin: ``[3]``, higher than its foot.
      rays: ``[P, 3]``.
      centre: ``[3]``.
      radius: metres.
      half: half its height.
    """
    start = origin - centre
    flat, flat_start = rays[:, [0, 2]], start[[0, 2]]
    side = _first_root(
        (flat**2).sum(axis=1),
        flat @ flat_start,
        float(flat_start @ flat_start) - radius**2,
    )
    height = start[1] + _reach(side) * rays[:, 1]
    side = np.where(np.abs(height) <= half, side, np.inf)
    # Only rays that go down can reach the top from above.
    top = (half - start[1]) / np.minimum(rays[:, 1], -1e-12)
    at = flat_start + top[:, None] * flat
    top = np.where((top > 0) & ((at**2).sum(axis=1) <= radius**2), top, np.inf)
    around = (start + _reach(side)[:, None] * rays) / radius * np.array([1, 0, 1])
    up = np.array([0.0, 1.0, 0.0])
    return np.minimum(side, top), np.where((top < side)[:, None], up, around)


def _slabs(origin: Array, rays: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Where rays enter and leave the space between each pair of planes, ``[P, 3]``."""
    # A ray that runs along a plane divides by zero: a tiny slope sends both ends far
    # away without inf - inf.
    slope = np.where(np.abs(rays) < 1e-12, 1e-12, rays)
    ends = (low - origin) / slope, (high - origin) / slope
    return np.minimum(*ends), np.maximum(*ends)


def _axis_normal(rays: Array, axis: NDArray[np.intp]) -> Array:
    """Unit vectors along an axis, in the direction of the ray."""
    picked = np.eye(3)[axis]
    return np.asarray(picked * np.where(rays < 0, -1.0, 1.0))


def _first_root(a: Array, b: Array, c: float) -> Array:
    """The smaller root of a t² + 2 b t + c; inf where there is none in front."""
    inner = b * b - a * c
    t = (-b - np.sqrt(np.maximum(inner, 0.0))) / a
    return np.where((inner > 0) & (t > 0), t, np.inf)


def _reach(t: Array) -> Array:
    """Zero instead of inf, so that a miss has a normal that is a number."""
    return np.where(np.isinf(t), 0.0, t)
