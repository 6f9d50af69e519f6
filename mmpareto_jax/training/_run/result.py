"""What a run came to: known to the loop that finds it and the files that keep it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from mmpareto_jax import ObjectiveGroups
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._run.checkpoint import Which
from mmpareto_jax.training._run.counts import Nonfinite
from mmpareto_jax.training._run.state import TrainState
from mmpareto_jax.training._tasks.criteria import Measure


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run, or an evaluation of its checkpoint, came to.

    Attributes:
      workdir: where everything is.
      config: the run's configuration.
      checkpoint: which checkpoint was evaluated: "best" on validation, or "latest".
      step: the step of that checkpoint, from 1.
      finished: whether the run was complete; False after Ctrl-C, and where steps that
        were not finite have ended it. (After ``evaluate`` always True.)
      scores: split -> name -> value, for "validation" and "test": losses, and measures,
        of which shares are from 0 to 1.
      conflicts: group -> share of steps with a conflict, from 0 to 1, over all steps up
        to now (of those that found weights, with ``refresh``); for the groups of
        parameters on which several objectives act.
      nonfinite: how many steps up to now were not finite, and whose fault it was.
      diverged: whether such steps have ended the run; or, where ``on_nonfinite`` is
        "continue", whether its last step was one; or whether the main measure is not
        finite on validation.
      groups: which objectives act on which parameters.
      measures: what of the scores is reported, the main one first.
      state: the state at the end of the run (after ``evaluate``: the checkpoint's).
    """

    workdir: Path
    config: Config
    checkpoint: Which
    step: int
    finished: bool
    scores: dict[str, dict[str, float]]
    conflicts: dict[str, float]
    nonfinite: Nonfinite
    diverged: bool
    groups: ObjectiveGroups
    measures: tuple[Measure, ...]
    state: TrainState = dataclasses.field(repr=False)

    @property
    def is_unscored(self) -> bool:
        """Whether the main measure is not finite on validation."""
        return not math.isfinite(self.scores["validation"][self.measures[0].name])
