"""Checkpoints: the best on validation and the latest. All of orbax is in here."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
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
_FEW = 3  # leaves that a message names
# Leaves that checkpoints of earlier versions lack: they begin as zero.
_LATER = {"streak"}


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
            # Without it, what is stored is not known before something was restored.
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def save(self, state: Any, step: int, score: float | None = None) -> None:
        """Saves in the background; `score` makes it a candidate for the best.

        One that is not finite loses to all that are.
        """
        self._manager.save(
            step,
            args=ocp.args.StandardSave(_to_arrays(state)),
            metrics={_METRIC: score},
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
        arrays = _to_arrays(template)
        like = {k: ocp.utils.to_shape_dtype_struct(x) for k, x in arrays.items()}
        for path in _LATER - set(self._manager.item_metadata(step).tree):
            like.pop(path, None)
        self._check(step, like)
        stored = self._manager.restore(step, args=ocp.args.StandardRestore(like))
        leaves, treedef = jax.tree.flatten(template)
        values = [
            stored[path] if path in like else _zero(x)
            for path, x in named_leaves(template)
        ]
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
        found = {
            step: self._manager.metrics(step) for step in self._manager.all_steps()
        }
        ranked = [
            (_score(metrics), step)
            for step, metrics in found.items()
            if metrics[_METRIC] is not None
        ]
        return max(ranked)[1] if ranked else None

    def _check(self, step: int, like: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        """Raises ValueError where a checkpoint has other leaves."""
        stored = self._manager.item_metadata(step).tree
        if others := list(_others(stored, like)):
            more = f"; and {len(others) - _FEW} more" if len(others) > _FEW else ""
            raise ValueError(
                f"checkpoint {step}: has other parameters than the model: "
                f"{'; '.join(others[:_FEW])}{more}"
            )

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _score(metrics: Mapping[str, float | None]) -> float:
    """What checkpoints are ranked by: those without a validation come last."""
    score = metrics[_METRIC]
    if score is None:
        return -math.inf
    return score if math.isfinite(score) else -sys.float_info.max


def _others(
    stored: Mapping[str, Any], like: Mapping[str, jax.ShapeDtypeStruct]
) -> Iterator[str]:
    """What a checkpoint lacks, has too much, and has in another form.

    Parameters come first: what optimisers keep of each differs with it.
    """
    for path in sorted({**like, **stored}, key=lambda x: not x.startswith("params/")):
        if path not in stored:
            yield f"missing {path}"
        elif path not in like:
            yield f"unexpected {path}"
        elif stored[path].shape != like[path].shape:
            yield f"{path} is {stored[path].shape}, not {like[path].shape}"
        elif stored[path].dtype != like[path].dtype:
            yield f"{path} is {stored[path].dtype}, not {like[path].dtype}"


def _zero(x: Any) -> jax.Array:
    """Like a leaf, whose own numbers may be gone."""
    return jnp.zeros(x.shape, x.dtype, device=x.sharding)


def _is_key(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jax.dtypes.prng_key))


def _to_arrays(tree: Any) -> dict[str, jax.Array]:
    return {
        path: jax.random.key_data(x) if _is_key(x) else x
        for path, x in named_leaves(tree)
    }
