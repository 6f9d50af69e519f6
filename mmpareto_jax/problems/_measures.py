"""How good a set of points is, against a front or by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from mmpareto_jax._gramians.min_norm import min_norm_weights


def pareto_stationarity(jacobian: jax.Array) -> jax.Array:
    r"""How far a point is from Pareto stationary, in gradient norm.

    .. math:: \min_{w \ge 0,\ \sum_k w_k = 1} \Big\| \sum_k w_k g_k \Big\|

    It is zero exactly where no direction improves all objectives to first order: at
    Pareto optimal points, but also wherever a single gradient vanishes.

    Args:
      jacobian: [K, D], the gradients.

    Returns:
      Scalar, in the units of a gradient; at least float32.

    Raises:
      ValueError: not a matrix.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmpareto_jax import problems
      >>> print(problems.pareto_stationarity(jnp.array([[1.0, 1.0], [-1.0, 1.0]])))
      1.0
    """
    jacobian = jnp.asarray(jacobian)
    if jacobian.ndim != 2:
        raise ValueError(
            "pareto_stationarity: expected a Jacobian [K, D], got shape "
            f"{jacobian.shape}."
        )
    jacobian = jacobian.astype(jnp.promote_types(jacobian.dtype, jnp.float32))
    peak = jnp.max(jnp.abs(jacobian))
    # The Gramian squares: of tiny or huge gradients nothing would be left.
    unit = jacobian / jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1.0)
    weights = min_norm_weights(jnp.matmul(unit, unit.T, precision="highest"))
    # From the combination itself: the Gramian's square root has half of the digits.
    point = jnp.matmul(weights, unit, precision="highest")
    return jnp.asarray(peak * jnp.linalg.norm(point))


def non_dominated(points: npt.ArrayLike) -> np.ndarray:
    """Which points no other point dominates (all losses at most, one less).

    Args:
      points: [N, K], losses.

    Returns:
      Bool [N]; equal points do not dominate one another.

    Raises:
      ValueError: not a matrix, or not finite.

    Example:
      >>> from mmpareto_jax import problems
      >>> print(problems.non_dominated([[0, 2], [1, 1], [2, 1]]))
      [ True  True False]
    """
    y = _points("non_dominated", "points", points)
    at_most = np.all(y[:, None] <= y[None, :], axis=-1)  # [i, j]: i is nowhere worse
    less = np.any(y[:, None] < y[None, :], axis=-1)
    return np.asarray(~np.any(at_most & less, axis=0))


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    r"""The volume that points dominate, up to a reference point.

    .. math:: \Big| \bigcup_i \prod_k [y_{ik}, r_k] \Big|

    Exact, by slicing along the last objective, recursively: N log N work for K = 2,
    about N^(K-1) for more.

    Args:
      points: [N, K], losses; those that are not below the reference everywhere count
        for nothing.
      reference: [K].

    Returns:
      The volume, in the product of the losses' units; 0.0 without points.

    Raises:
      ValueError: shapes that do not fit together, or values that are not finite.

    Example:
      >>> from mmpareto_jax import problems
      >>> print(problems.hypervolume([[0, 2], [1, 1], [2, 2]], [3, 3]))
      5.0

    References:
      Zitzler & Thiele, Multiobjective Optimization Using Evolutionary Algorithms: A
      Comparative Case Study, PPSN 1998.
    """
    y = _points("hypervolume", "points", points)
    r = np.asarray(reference, float)
    if r.shape != y.shape[1:] or not np.isfinite(r).all():
        raise ValueError(
            f"hypervolume: reference must be finite, of shape {y.shape[1:]}, got {r}."
        )
    return _volume(y[np.all(y < r, axis=1)], r)


def distance_to_front(points: npt.ArrayLike, front: npt.ArrayLike) -> float:
    r"""Generational distance: how far points are from a front, on average.

    .. math:: \frac1N \sum_i \min_j \| y_i - f_j \|

    Args:
      points: [N, K], losses (or parameters, with a front of parameters).
      front: [M, K], points of the front; the result is exact up to their spacing.

    Returns:
      The mean distance, in the losses' units.

    Raises:
      ValueError: no points, shapes that do not fit together, or not finite.

    Example:
      >>> from mmpareto_jax import problems
      >>> print(problems.distance_to_front([[0, 2], [1, 1]], [[0, 1], [1, 1]]))
      0.5
    """
    return float(_distances("distance_to_front", points, front).min(1).mean())


def inverted_distance_to_front(points: npt.ArrayLike, front: npt.ArrayLike) -> float:
    r"""Inverted generational distance: how much of a front points leave uncovered.

    .. math:: \frac1M \sum_j \min_i \| y_i - f_j \|

    Args:
      points: [N, K].
      front: [M, K].

    Returns:
      The mean distance from the front to the points, in the losses' units.

    Raises:
      ValueError: as :func:`distance_to_front`.

    Example:
      >>> from mmpareto_jax import problems
      >>> print(problems.inverted_distance_to_front([[0, 1]], [[0, 1], [1, 1]]))
      0.5
    """
    return float(_distances("inverted_distance_to_front", points, front).min(0).mean())


def _points(caller: str, argument: str, value: npt.ArrayLike) -> np.ndarray:
    array = np.asarray(value, float)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ValueError(
            f"{caller}: {argument} must be finite and [N, K], got shape {array.shape}"
            f"{'' if np.isfinite(array).all() else ' with values that are not'}."
        )
    return array


def _distances(caller: str, points: npt.ArrayLike, front: npt.ArrayLike) -> np.ndarray:
    y, f = _points(caller, "points", points), _points(caller, "front", front)
    if not y.size or not f.size or y.shape[1] != f.shape[1]:
        raise ValueError(
            f"{caller}: points and front must be [N, K] and [M, K] with N, M >= 1, got "
            f"{y.shape} and {f.shape}."
        )
    distances: np.ndarray = np.sqrt(np.sum((y[:, None] - f[None, :]) ** 2, axis=-1))
    return distances


def _volume(y: np.ndarray, r: np.ndarray) -> float:
    """Of points [N, K] that are all below the reference r [K]."""
    if not len(y):
        return 0.0
    if len(r) == 1:
        return float(r[0] - y.min())
    y = y[np.argsort(y[:, -1], kind="stable")]
    tops = np.append(y[1:, -1], r[-1])
    if len(r) == 2:
        widths = r[0] - np.minimum.accumulate(y[:, 0])
        return float(widths @ (tops - y[:, -1]))
    # Between two levels of the last objective the slice is the volume of all points
    # that are at or below it.
    heights = tops - y[:, -1]
    return sum(
        float(h) * _volume(_front_of(y[: i + 1, :-1]), r[:-1])
        for i, h in enumerate(heights)
        if h > 0
    )


def _front_of(y: np.ndarray) -> np.ndarray:
    """Without the dominated points, which add nothing and cost time."""
    kept: np.ndarray = y[non_dominated(y)]
    return kept
