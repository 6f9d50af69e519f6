"""The two-objective toy problem of CAGrad and Nash-MTL."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmpareto_jax.problems._problem import Problem, decaying

_SHARPEST = 5e-6  # the valley's floor, of the published code
_STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0), (-8.5, -5.0))


def toy(scale: float = 1.0, *, steps: int = 100_000) -> Problem:
    r"""The two-dimensional problem on which CAGrad and Nash-MTL show their paths.

    With :math:`\sigma = \tanh(x_2 / 2)`,

    .. math:: L_1(x) = \sigma_+ \big(\log \max(|\tfrac{x_1 + 7}{2} - \tanh x_2|,\
        5 \cdot 10^{-6}) + 6\big) + (-\sigma)_+ \Big(\frac{(x_1 - 7)^2 + 0.1 (x_2 +
        8)^2}{10} - 20\Big)

    and :math:`L_2` is its mirror image, :math:`L_2(x_1, x_2) = L_1(-x_1, x_2)`. Above
    :math:`x_2 = 0` each objective has a narrow valley with walls of nearly unbounded
    slope, and the two valleys conflict; below are two shallow bowls.

    The Pareto set is an arc in the lower half, :math:`|x_1| \le 7`, where the weights
    :math:`w_{1,2} = (1 \pm x_1 / 7) / 2` make the weighted gradient zero:

    .. math:: \frac{q}{\sinh x_2} + 0.02\,(x_2 + 8) = 0, \qquad
        q = \frac{49 - x_1^2}{10} + \frac{(x_2 + 8)^2}{100} - 20,

    one root :math:`x_2` for each :math:`x_1`, from -8.355 in the middle to -8.434 at
    the ends (the published pictures draw a straight segment at -8.355). It is the whole
    front: the upper half is nowhere below -6.3 in either objective, and (0, -8.355)
    has -15.1 in both.

    Args:
      scale: factor of the first objective; Nash-MTL takes 0.1, to show which methods
        depend on it. The Pareto set does not, only the weights that belong to a point
        of it.
      steps: of a trajectory.

    Returns:
      The problem, with objectives "L1" and "L2", Nash-MTL's five starting
      points and (-8.5, -5), the one that only CAGrad has. Trajectories take Adam with
      the papers' step size 0.001, which here decays at the end, and as many steps as
      CAGrad's: PCGrad and CAGrad need more than half of them to leave the valleys.

    Raises:
      ValueError: `scale` is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmpareto_jax import problems
      >>> problem = problems.toy()
      >>> print(problem.losses(jnp.array([0.0, -8.3552])).round(1))
      [-15.1 -15.1]
      >>> print([f"({x:.2f}, {y:.2f})" for x, y in problem.front(3).params])
      ['(7.00, -8.43)', '(0.00, -8.36)', '(-7.00, -8.43)']

    References:
      Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS
      2021, ``toy.py`` of the repository Cranial-XIX/CAGrad; Navon et al., Multi-Task
      Learning as a Bargaining Game, ICML 2022, ``experiments/toy`` of
      AvivNavon/nash-mtl.
    """
    if not scale > 0:
        raise ValueError(f"toy: scale must be positive, got {scale}.")

    def losses_fn(x: jax.Array) -> dict[str, jax.Array]:
        return {
            "L1": scale * _objective(x[0], x[1]),
            "L2": _objective(-x[0], x[1]),
        }

    return Problem(
        name="toy" if scale == 1 else f"toy, first objective × {scale:g}",
        objectives=("L1", "L2"),
        losses_fn=losses_fn,
        pareto_set=_pareto_set,
        starts=np.array(_STARTS),
        view=((-11.0, 11.0), (-11.0, 11.0)),
        steps=steps,
        optimizer=optax.adam(decaying(steps, 1e-3, hold=0.8)),
    )


def _objective(x: jax.Array, y: jax.Array) -> jax.Array:
    valley = jnp.log(jnp.maximum(jnp.abs((x + 7) / 2 - jnp.tanh(y)), _SHARPEST)) + 6
    bowl = ((x - 7) ** 2 + 0.1 * (y + 8) ** 2) / 10 - 20
    upper = jnp.maximum(jnp.tanh(y / 2), 0.0)
    lower = jnp.maximum(jnp.tanh(-y / 2), 0.0)
    return upper * valley + lower * bowl


def _pareto_set(n: int) -> np.ndarray:
    """Points [n, 2] from the first objective's minimum to the second's."""
    x = 7 * np.linspace(1, -1, n) if n > 1 else np.zeros(1)
    low, high = np.full(n, -20.0), np.full(n, -8.0)
    # The left side of the equation increases in x_2 wherever it can be zero.
    for _ in range(60):
        y = (low + high) / 2
        mean = (49 - x**2) / 10 + (y + 8) ** 2 / 100 - 20
        above = mean / np.sinh(y) + 0.02 * (y + 8) > 0
        low, high = np.where(above, low, y), np.where(above, y, high)
    return np.stack([x, y], axis=1)
