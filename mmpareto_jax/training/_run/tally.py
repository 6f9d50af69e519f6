"""What happens to a run's metrics between two records: all of it on the device."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._whole_files import whole_file
from mmpareto_jax.training._run.counts import NONFINITE
from mmpareto_jax.training._run.damaged import move_aside, say

# Rows of a tally.
_SUM, _COUNT, _LOW, _HIGH = range(4)
# The metric of a step that says whether it has ended the run.
ENDED = "ended"
_OF_GROUPS = ("cosine", "conflict", "magnitude")
_CUT = "unfinished_record.npz"


class Tally(NamedTuple):
    """How the metrics of an interval of steps are packed into one array [4, M].

    Its rows are the sum, the count, the least and the largest of the finite values of
    each metric. One array is one transfer.

    Attributes:
      names: of the metrics, in the order of the array's columns.
      flags: the names of those that are 0 or 1.
      dtype: of the array, which holds every metric as it is.
    """

    names: tuple[str, ...]
    flags: frozenset[str]
    dtype: Any

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Tally:
        """Of metrics of these names and dtypes."""
        dtypes = {name: np.dtype(x.dtype) for name, x in metrics.items()}
        return cls(
            tuple(dtypes),
            frozenset(name for name in dtypes if name.endswith("/conflict")),
            jnp.result_type(jnp.float32, *dtypes.values()),
        )

    def empty(self) -> np.ndarray:
        """The tally of no step."""
        column = np.array([0, 0, np.inf, -np.inf], self.dtype)
        return np.repeat(column[:, None], len(self.names), axis=1)

    def fits(self, cut: Cut) -> bool:
        """Whether a record of before is of these metrics, for steps to be added to."""
        there = cut.tally
        alike = there.shape == (4, len(self.names)) and there.dtype == self.dtype
        return alike and cut.names in ((), self.names)

    def add(
        self, tally: Any, metrics: Mapping[str, jax.Array], taken: Any = True
    ) -> jax.Array:
        """The tally with a step more, if that was taken; part of the step's program."""
        values = jnp.stack([metrics[name].astype(self.dtype) for name in self.names])
        there = jnp.isfinite(values)
        there &= taken
        return jnp.stack(
            [
                tally[_SUM] + jnp.where(there, values, 0),
                tally[_COUNT] + there,
                jnp.where(there, jnp.minimum(tally[_LOW], values), tally[_LOW]),
                jnp.where(there, jnp.maximum(tally[_HIGH], values), tally[_HIGH]),
            ]
        )

    def steps(self, tally: np.ndarray) -> int:
        """How many steps it is of, fetched: those after the run's end are of none."""
        return int(tally[_COUNT, self.names.index(NONFINITE)])

    def ended(self, tally: np.ndarray) -> bool:
        """Whether one of its steps, fetched, has ended the run."""
        return bool(tally[_SUM, self.names.index(ENDED)])

    def going_on(self, tally: np.ndarray) -> np.ndarray:
        """The same, fetched, for a run that is tried again."""
        column = self.names.index(ENDED)
        return np.where(np.arange(len(self.names)) == column, self.empty(), tally)

    def record(self, tally: np.ndarray, steps: int) -> dict[str, Any]:
        """The metrics of an interval.

        Args:
          tally: of its steps, fetched.
          steps: how many these are.

        Returns:
          Name -> the mean of the finite values, None where there are none; of a single
          step the value itself, a bool where it is one. Of more steps also "steps",
          the least cosine and the largest magnitude factor, and how many steps a share
          of conflicts is of, where it is not of all. Where steps were not finite,
          "nonfinite", how many; "nonfinite/NAME", of these those at which an objective
          was not, or a loss or measure that is left out of its mean; and
          "GROUP/nonfinite".
        """
        found: dict[str, Any] = {}
        missing: dict[str, int] = {}
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            means = tally[_SUM].astype(np.float64) / tally[_COUNT]
        for column, name in enumerate(self.names):
            mean, count = float(means[column]), int(tally[_COUNT, column])
            if name == ENDED:
                continue
            if _is_count(name):
                missing[name] = int(tally[_SUM, column])
                continue
            found[name] = mean if np.isfinite(mean) else None
            if not _is_of_a_group(name):
                missing[f"{NONFINITE}/{name}"] = steps - count
            if steps == 1:
                if name in self.flags and count:
                    found[name] = bool(mean)
                continue
            if name.endswith("/cosine") and count:
                found[f"{name}_min"] = float(tally[_LOW, column])
            if name.endswith("/magnitude") and count:
                found[f"{name}_max"] = float(tally[_HIGH, column])
            if name.endswith("/conflict") and count != steps:
                found[f"{name}_count"] = count
        found |= {name: count for name, count in missing.items() if count}
        return found if steps == 1 else {"steps": steps, **found}


def _is_count(name: str) -> bool:
    """Whether steps are counted, of which a metric says that they were not finite."""
    return (
        name == NONFINITE
        or name.startswith(f"{NONFINITE}/")
        or name.endswith(f"/{NONFINITE}")
    )


def _is_of_a_group(name: str) -> bool:
    """Whether it is a diagnostic: the share of conflicts says of how many steps."""
    parts = name.split("/")
    return parts[-1] in _OF_GROUPS or parts[-2:-1] in (["norm"], ["weight"])


class Cut(NamedTuple):
    """A record that is not complete, where a run was stopped: it goes on with it.

    Attributes:
      step: the last one.
      steps: how many they are.
      tally: of these.
      names: of its metrics; none in a file of an earlier version.
    """

    step: int
    steps: int
    tally: Any
    names: tuple[str, ...] = ()


def write_cut(workdir: Path, cut: Cut) -> None:
    """Leaves it for the run that goes on."""
    with whole_file(workdir / _CUT) as file:
        np.savez(file, allow_pickle=False, **cut._asdict())


def read_cut(workdir: Path, step: int) -> Cut | None:
    """What a run that goes on from this step has to go on with, if anything.

    A file that cannot be read is moved aside, with a warning: the record that was cut
    off there stays one of fewer steps.
    """
    try:
        cut = _read_cut(workdir / _CUT)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        aside = move_aside(workdir, workdir / _CUT)
        say(f"workdir {workdir}: unreadable {_CUT}, moved to {aside}: {error}")
        return None
    return cut if cut and cut.step == step else None


def has_cut(workdir: Path, step: int) -> bool:
    """Whether `read_cut` finds one."""
    cut = _read_cut(workdir / _CUT)
    return cut is not None and cut.step == step


def _read_cut(path: Path) -> Cut | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as found:
        names = tuple(found["names"].tolist()) if "names" in found else ()
        return Cut(int(found["step"]), int(found["steps"]), found["tally"], names)


def forget_cut(workdir: Path) -> None:
    """Of a run that is over."""
    (workdir / _CUT).unlink(missing_ok=True)
