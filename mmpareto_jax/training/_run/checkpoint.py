"""Checkpoints: the best on validation and the latest. All of orbax is in here."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from mmpareto_jax._gradients.groups import named_leaves
from mmpareto_jax._whole_files import naming, read_json
from mmpareto_jax.training._run import checksums
from mmpareto_jax.training._run.processes import first_alone

Tree = TypeVar("Tree")
Which = Literal["best", "latest"]
_METRIC = "score"
_STEP = re.compile("0|[1-9][0-9]*")
# The second is for a run whose latest one is damaged.
_LATEST = 2
# As tensorstore tells of an error of the system.
_SYSTEM = re.compile(r"\[os_error_code='(\d+)'\]")
_FEW = 3  # leaves that a message names
# Leaves that checkpoints of earlier versions lack: they begin as zero.
_LATER = {"streak"}


class UnreadableError(ValueError):
    """A checkpoint that cannot be read, or is no longer what was written."""


@contextlib.contextmanager
def _errors_of_the_disk(directory: Path) -> Iterator[None]:
    """Of orbax's errors, which are of many kinds, those of the system name a directory.

    Raises:
      OSError: instead of what tensorstore makes of one.
    """
    try:
        with naming(directory):
            yield
    except ValueError as error:
        if not (found := _SYSTEM.search(str(error))):
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(directory)) from error


class Checkpoints:
    """The checkpoints of a run, in one directory: a folder each, named by its step.

    A state is stored as path -> array, so that a file can be read without the
    classes that made it; random keys are stored as their data. With it lie its score
    and the checksums of all its files, which are compared before it is read.

    Attributes:
      directory: where they are.
    """

    def __init__(self, directory: Path):
        """Nothing is read or written yet."""
        self.directory = directory.absolute()
        self._saving: int | None = None
        self._handler = ocp.StandardCheckpointHandler()
        self._reader = ocp.Checkpointer(self._handler)

    def steps(self) -> list[int]:
        """Those of the checkpoints that are complete, or were once; in order."""
        self.wait()
        if not self.directory.is_dir():
            return []
        names = [path.name for path in self.directory.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if _STEP.fullmatch(name))

    def damage(self, step: int) -> str | None:
        """What is wrong with the files of a checkpoint; None: nothing that is known."""
        self.wait()
        folder = self.directory / str(step)
        return self._missing(step) or checksums.damage(folder)

    def _missing(self, step: int) -> str | None:
        """What is wrong with it as far as one sees without reading its arrays."""
        folder = self.directory / str(step)
        parts = ("_CHECKPOINT_METADATA", "default", "metrics")
        missing = [part for part in parts if not (folder / part).exists()]
        if missing:
            whole = len(missing) == len(parts)
            return "it is empty" if whole else f"{missing[0]} is missing"
        try:
            self._score(step)
        except (OSError, ValueError, TypeError, KeyError) as error:
            return f"its score cannot be read: {error}"
        return None

    def sound_steps(self) -> list[int]:
        """Those of the checkpoints that are not damaged, in order."""
        return [step for step in self.steps() if not self.damage(step)]

    def open(self) -> None:
        """Makes the directory, for `save`; none of its checkpoints may be damaged.

        It is reached by all processes of a run.
        """
        with _errors_of_the_disk(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager  # noqa: B018

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        policies = checkpoint_managers
        best = policies.BestN(get_metric_fn=_rank, n=1)
        return ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [policies.LatestN(_LATEST), best]
                ),
                # Orbax stores metrics only when it is told how to compare them.
                best_fn=_rank,
                # What a run that was killed has left.
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._seal,
                ),
            ),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def save(self, state: Any, step: int, score: float | None = None) -> None:
        """Saves in the background; `score` makes it a candidate for the best.

        One that is not finite loses to all that are.

        Raises:
          OSError: the disk is full, or nothing can be written there. It may come at the
            next call of anything here, of what was being saved.
        """
        self.wait()
        self._saving = step
        with _errors_of_the_disk(self.directory):
            self._manager.save(
                step,
                args=ocp.args.StandardSave(_to_arrays(state)),
                metrics={_METRIC: score},
                force=True,
            )

    def _seal(self) -> None:
        """Before a checkpoint gets its name: a complete one has its checksums."""
        for folder in self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
            # In which the time of this is written, after it.
            checksums.write_checksums(folder, leave_out=("_CHECKPOINT_METADATA",))

    def wait(self) -> None:
        """Until what is being saved is on disk."""
        if self._saving is not None:
            with _errors_of_the_disk(self.directory):
                self._manager.wait_until_finished()

    def restore(self, template: Tree, step: int) -> Tree:
        """The state of a checkpoint, on the devices of `template`.

        Raises:
          UnreadableError: it is damaged.
          ValueError: it has other leaves than `template`.
        """
        first_alone(lambda: self._refuse_damaged(step))
        arrays = _to_arrays(template)
        like = {k: ocp.utils.to_shape_dtype_struct(x) for k, x in arrays.items()}
        stored = self._read(step, like)
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

    def _refuse_damaged(self, step: int) -> None:
        if wrong := self.damage(step):
            raise UnreadableError(f"{self._named(step)} is damaged: {wrong}")

    def latest_step(self) -> int | None:
        """The step of the latest checkpoint."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step of the best checkpoint on validation, the latest of equals.

        None where no score is finite.

        Raises:
          UnreadableError: the score of one cannot be.
        """
        ranked = []
        for step in self.steps():
            if wrong := self._missing(step):
                raise UnreadableError(f"{self._named(step)} is damaged: {wrong}")
            score = self._score(step)
            if score is not None and math.isfinite(score):
                ranked.append((score, step))
        return max(ranked)[1] if ranked else None

    def _score(self, step: int) -> float | None:
        """What a checkpoint has been saved with."""
        path = self.directory / str(step) / "metrics" / "metrics"
        score = read_json(path)[_METRIC]
        return None if score is None else float(score)

    def _read(self, step: int, like: dict[str, jax.ShapeDtypeStruct]) -> Any:
        """The arrays of a checkpoint; `like` loses those that it is too old to have.

        Raises:
          UnreadableError: orbax cannot.
          ValueError: it has other leaves.
        """
        folder = self.directory / str(step) / "default"
        try:
            stored = self._handler.metadata(folder).tree
        except Exception as error:
            raise self._unreadable(step, error) from error
        for path in _LATER - set(stored):
            like.pop(path, None)
        if others := list(_others(stored, like)):
            more = f"; and {len(others) - _FEW} more" if len(others) > _FEW else ""
            raise ValueError(
                f"checkpoint {step}: has other parameters than the model: "
                f"{'; '.join(others[:_FEW])}{more}"
            )
        try:
            return self._reader.restore(folder, args=ocp.args.StandardRestore(like))
        except Exception as error:
            raise self._unreadable(step, error) from error

    def _unreadable(self, step: int, error: Exception) -> UnreadableError:
        """Of a checkpoint without checksums: orbax has many errors for it."""
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return UnreadableError(
            f"{self._named(step)} cannot be read: {reason}; move that folder away to "
            "use the checkpoint before it"
        )

    def _named(self, step: int) -> str:
        return f"checkpoint {self.directory / str(step)}"

    def close(self) -> None:
        """Waits until everything is on disk."""
        self.wait()
        self._reader.close()
        if "_manager" in vars(self):
            self._manager.close()


def _rank(metrics: Mapping[str, float | None]) -> float:
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
