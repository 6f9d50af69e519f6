"""Training: configuration, step, loop, checkpoints, metrics, figures."""

from typing import TYPE_CHECKING

from mmpareto_jax._lazy import on_first_use

if TYPE_CHECKING:
    from mmpareto_jax.training._public import *  # noqa: F403
else:
    __getattr__, __dir__ = on_first_use(__name__)
    del TYPE_CHECKING, on_first_use
