"""Constant weights."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax.weightings._arguments import check_vector
from mmpareto_jax.weightings._preference import PerObjective, by_name
from mmpareto_jax.weightings._weighting import Weighting


def constant(weights: PerObjective, *, others: float | None = None) -> Weighting:
    r"""Fixed weights, :math:`\sum_k c_k g_k`.

    Args:
      weights: c by the objectives' names; or [K], in the order of a group's objectives,
        and then every group of several objectives must have this K.
      others: c of those that `weights`, by name, does not name; None: it names all.

    Returns:
      The weighting.

    Raises:
      TypeError: an argument is of another type.
      ValueError: `weights` is not a vector, or empty, or `others` is given with one; in
        ``init``, a group has another K; in ``aggregate``, `weights` names an objective
        that does not exist, or lacks one.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weights, _ = mmp.weightings.constant([1.0, 0.5]).weights(jnp.eye(2), ())
      >>> print(weights)
      [1.  0.5]

      Only the joint loss is to train what it shares with others:

      >>> tx = mmp.aggregate(mmp.weightings.constant({"joint": 1.0}, others=0.0),
      ...     mmp.ObjectiveGroups.from_prefixes({"encoder": ("audio", "joint")}))
      >>> grads = {"encoder": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
      >>> print(tx.update(grads, tx.init({"encoder": jnp.zeros(2)}))[0]["encoder"])
      [3. 4.]
    """
    if isinstance(weights, Mapping):
        if not weights:
            raise ValueError("constant: weights must name an objective, got none.")
        return by_name(constant, "constant", others=others, weights=weights)
    if others is not None:
        raise ValueError("constant: others needs weights by name, got a vector.")
    if weights is None:
        raise TypeError("constant: weights must be a vector of numbers, got None.")
    check_vector("constant", "weights", weights)
    # A list in its own precision, whatever is enabled now.
    vector = weights if isinstance(weights, jax.Array) else np.asarray(weights)

    def init(num: int) -> tuple[()]:
        if num != len(vector):
            raise ValueError(
                f"constant: {len(vector)} weights for a group of {num} objectives."
            )
        return ()

    def given(gramian: jax.Array, state: tuple[()]) -> tuple[jax.Array, tuple[()]]:
        return jnp.asarray(vector, gramian.dtype), state

    return Weighting(init, given, reads_gramian=False)
