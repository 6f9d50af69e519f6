"""Convex problems whose Pareto set has a closed form."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from mmpareto_jax.problems._problem import Problem, decaying


def element_wise_quadratic(num: int = 2, *, steps: int = 400) -> Problem:
    r"""One objective per coordinate, :math:`L_k(x) = x_k^2`.

    The objectives do not conflict anywhere, and x = 0 is the Pareto set. But wherever
    one coordinate is zero its gradient is, and the min-norm point with it: a method
    that follows the min-norm point stops there, though all others can be improved.

    Args:
      num: K = D.
      steps: of a trajectory.

    Returns:
      The problem, with objectives "L1", "L2", ...; one of its starts lies on an axis.

    Raises:
      ValueError: fewer than two objectives.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmpareto_jax import problems
      >>> print(problems.element_wise_quadratic().losses(jnp.array([3.0, -2.0])))
      [9. 4.]

    References:
      Quinton & Rey, Jacobian Descent for Multi-Objective Optimization, 2024,
      https://arxiv.org/abs/2406.16232, and the repository TorchJD/trajectories.
    """
    if num < 2:
        raise ValueError(f"element_wise_quadratic: num must be at least 2, got {num}.")
    starts = np.array(
        [[3.0, -2.0], [0.0, -3.0], [-4.0, 4.0], [-3.0, 4.0], [-5.0, -1.0]]
    )
    return Problem(
        name="element-wise quadratic",
        objectives=tuple(f"L{k + 1}" for k in range(num)),
        losses_fn=lambda x: {f"L{k + 1}": x[k] ** 2 for k in range(num)},
        pareto_set=lambda n: np.zeros((n, num)),
        starts=np.resize(starts.T, (num, len(starts))).T,
        view=((-6.0, 6.0),) * num,
        steps=steps,
        optimizer=optax.sgd(decaying(steps, 0.05)),
    )


def convex_quadratics(
    factors: npt.ArrayLike,
    centers: npt.ArrayLike,
    *,
    name: str = "convex quadratics",
    starts: npt.ArrayLike | None = None,
    steps: int = 3000,
) -> Problem:
    r"""Quadratic bowls with a centre and a shape of their own.

    .. math:: L_k(x) = \tfrac{1}{n} \| A_k (x - c_k) \|^2, \qquad
        x(w) = \Big(\sum_k w_k H_k\Big)^{-1} \sum_k w_k H_k c_k, \quad
        H_k = \tfrac{2}{n} A_k^\top A_k

    The Pareto set is x(w) over the simplex of the weights w, in general curved.

    Args:
      factors: [K, n, D], the matrices :math:`A_k`; some positive combination of the
        :math:`H_k` must be regular.
      centers: [K, D], the minimum of each objective.
      name: what a figure calls the problem.
      starts: [S, D]; by default the eight points around the centres at twice their
        spread (in the first two parameters; the others at the centres' mean).
      steps: of a trajectory.

    Returns:
      The problem, with objectives "L1", "L2", ... Trajectories take SGD at a tenth of
      the inverse of the sum's largest curvature, decaying at the end.

    Raises:
      ValueError: the shapes do not fit together, or every combination is singular.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax import problems
      >>> factors = np.stack([np.diag([1.0, 2.0]), np.diag([2.0, 1.0])])
      >>> problem = problems.convex_quadratics(factors, [[0.0, 0.0], [1.0, 1.0]])
      >>> print(problem.front(3).params)
      [[0.  0. ]
       [0.8 0.2]
       [1.  1. ]]
    """
    a, c = np.asarray(factors, float), np.asarray(centers, float)
    if a.ndim != 3 or c.ndim != 2 or (a.shape[0], a.shape[2]) != c.shape:
        raise ValueError(
            "convex_quadratics: expected factors [K, n, D] and centers [K, D], got "
            f"{a.shape} and {c.shape}."
        )
    num, rows, _ = a.shape
    hessians = 2 / rows * np.einsum("kni,knj->kij", a, a)
    if np.linalg.matrix_rank(hessians.sum(0)) < c.shape[1]:
        raise ValueError("convex_quadratics: the sum of the objectives is singular.")

    def losses_fn(x: jax.Array) -> dict[str, jax.Array]:
        return {
            f"L{k + 1}": jnp.mean(
                (jnp.asarray(a[k], x.dtype) @ (x - c[k].astype(x.dtype))) ** 2
            )
            for k in range(num)
        }

    def pareto_set(n: int) -> np.ndarray:
        # A factor of an objective moves no point of the set: of like size, the bowls
        # leave no part of it thinly covered.
        w = _simplex(n, num) / np.trace(hessians, axis1=1, axis2=2)
        weighted = np.einsum("nk,kij->nij", w, hessians)
        right = np.einsum("nk,kij,kj->ni", w, hessians, c)
        # Least squares: at a corner of the simplex one H_k alone may be singular.
        solve = (
            np.linalg.lstsq(m, b, rcond=None)[0]
            for m, b in zip(weighted, right, strict=True)
        )
        return np.stack(list(solve))

    spread = float(np.ptp(c, axis=0).max()) or 1.0
    middle = c.mean(0)
    if starts is None:
        angles = 2 * np.pi * np.arange(8) / 8
        around = np.zeros((8, c.shape[1]))
        around[:, 0], around[:, 1] = np.cos(angles), np.sin(angles)
        starts = middle + 2 * spread * around
    peak = 1 / (10 * np.linalg.eigvalsh(hessians.sum(0))[-1])
    return Problem(
        name=name,
        objectives=tuple(f"L{k + 1}" for k in range(num)),
        losses_fn=losses_fn,
        pareto_set=pareto_set,
        starts=np.asarray(starts, float),
        view=tuple((m - 2.5 * spread, m + 2.5 * spread) for m in middle),
        steps=steps,
        optimizer=optax.sgd(decaying(steps, float(peak))),
    )


def _simplex(n: int, num: int) -> np.ndarray:
    """Weights [n, K]: evenly along the edge for K = 2, else uniformly at random."""
    if num == 2:
        first = np.linspace(1, 0, n) if n > 1 else np.array([0.5])
        return np.stack([first, 1 - first], axis=1)
    return np.random.default_rng(0).dirichlet(np.ones(num), size=n)


def _rotated(angle: float, lengths: Sequence[float]) -> np.ndarray:
    turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    return np.diag(lengths) @ np.array(turn)


def two_quadratics(scale: float = 1.0) -> Problem:
    """Two bowls, turned against each other, the first one's loss times `scale`.

    Args:
      scale: of the first objective.

    Returns:
      :func:`convex_quadratics` with K = D = 2 and a curved front. The sum of the losses
      has one minimum, whatever the start: near the second centre for a small scale.

    Example:
      >>> from mmpareto_jax import problems
      >>> front = problems.two_quadratics().front(5)
      >>> print([f"({x:.1f}, {y:.1f})" for x, y in front.params])
      ['(-1.0, 0.0)', '(-0.4, 0.4)', '(0.0, 0.5)', '(0.4, 0.4)', '(1.0, 0.0)']
    """
    factors = np.stack([np.sqrt(scale) * _rotated(0.6, (1, 2)), _rotated(-0.6, (1, 2))])
    name = "two quadratics" if scale == 1 else f"two quadratics, first × {scale:g}"
    return convex_quadratics(factors, [[-1.0, 0.0], [1.0, 0.0]], name=name)


def three_quadratics() -> Problem:
    """Three bowls of different shapes in the plane; the front is a curved triangle.

    Returns:
      :func:`convex_quadratics` with K = 3 and D = 2.

    Example:
      >>> from mmpareto_jax import problems
      >>> print(problems.three_quadratics().objectives)
      ('L1', 'L2', 'L3')
    """
    factors = np.stack([_rotated(t, (1, 2)) for t in (0.0, 2.1, 4.2)])
    angles = np.pi / 2 + 2 * np.pi * np.arange(3) / 3
    centers = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return convex_quadratics(factors, centers, name="three quadratics")
