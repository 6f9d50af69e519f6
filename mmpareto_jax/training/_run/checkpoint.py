"""Checkpoints: the best on validation and the latest. All of orbax is in here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from mmpareto_jax._gradients.groups import named_leaves

Tree = TypeVar("Tree")
Which = Literal["best", "latest"]
_METRIC = "score"
_NONE = -1e30  # saved between validations: worse than any score


class Checkpoints:
    """The checkpoints of a run, in one directory.

    A state is stored as path -> array, so that a file can be read without the
    classes that made it; random keys are stored as their data.
    """

    def __init__(self, directory: Path):
        policies = checkpoint_managers
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(1),
                policies.BestN(
                    get_metric_fn=_score,
                    n=1,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            # Orbax stores metrics only when it is told how to compare them.
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep, best_fn=_score
            ),
        )

    def save(self, state: Any, step: int, score: float | None = None) -> None:
        """Saves in the background; `score` makes it a candidate for the best."""
        self._manager.save(
            step,
            args=ocp.args.StandardSave(_to_arrays(state)),
            metrics={_METRIC: _NONE if score is None else score},
            force=True,
        )

    def restore(self, template: Tree, which: Which) -> Tree | None:
        """The state of a checkpoint, on the devices of `template`; None: there is none.

        Raises:
          ValueError: the checkpoint has other leaves than `template`.
        """
        self._manager.wait_until_finished()
        step = self.best_step() if which == "best" else self._manager.latest_step()
        if step is None:
            return None
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, _to_arrays(template))
        stored = self._manager.restore(step, args=ocp.args.StandardRestore(like))
        leaves, treedef = jax.tree.flatten(template)
        values = [stored[path] for path, _ in named_leaves(template)]
        values = [
            jax.random.wrap_key_data(x, impl=jax.random.key_impl(old))
            if _is_key(old)
            else x
            for x, old in zip(values, leaves, strict=True)
        ]
        state: Tree = jax.tree.unflatten(treedef, values)
        return state

    def best_step(self) -> int | None:
        """The step of the best checkpoint on validation, the latest of equals."""
        self._manager.wait_until_finished()
        ranked = [
            (score, step)
            for step in self._manager.all_steps()
            if (score := _score(self._manager.metrics(step))) != _NONE
        ]
        return max(ranked)[1] if ranked else None

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _score(metrics: Any) -> float:
    return float(metrics[_METRIC])


def _is_key(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jax.dtypes.prng_key))


def _to_arrays(tree: Any) -> dict[str, jax.Array]:
    return {
        path: jax.random.key_data(x) if _is_key(x) else x
        for path, x in named_leaves(tree)
    }
