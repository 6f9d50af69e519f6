"""MMPareto for JAX: one descent direction for several losses.

The data flow, one room each: ``value_and_objective_grads`` gives the losses and each
one's gradient, stacked; ``mmpareto`` (or ``aggregate`` with any weighting) combines
them, as the first transformation in an ``optax.chain``.
"""

from typing import TYPE_CHECKING

from mmpareto_jax._lazy import on_first_use
from mmpareto_jax._version import __version__ as __version__

if TYPE_CHECKING:
    from mmpareto_jax._public import *  # noqa: F403
else:
    __getattr__, __dir__ = on_first_use(__name__)
    del TYPE_CHECKING, on_first_use
