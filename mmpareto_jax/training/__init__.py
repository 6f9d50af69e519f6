"""Training: runs of a config, comparisons of methods, reports of both.

Its rooms, each of which imports from those before it alone: `_choices`, `_options`,
`_config` and `_batch`; `_methods`; `_tasks`; `_run`; `_study`; `_report`. `_public`
lists the public names.
"""

from typing import TYPE_CHECKING

from mmpareto_jax._lazy import on_first_use

if TYPE_CHECKING:
    from mmpareto_jax.training._public import *  # noqa: F403
else:
    __getattr__, __dir__ = on_first_use(__name__)
    del TYPE_CHECKING, on_first_use
