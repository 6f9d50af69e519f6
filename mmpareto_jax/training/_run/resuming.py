"""From where a run goes on: from the latest of its checkpoints that is sound."""

from __future__ import annotations

from pathlib import Path

from mmpareto_jax.training._run.checkpoint import Checkpoints
from mmpareto_jax.training._run.damaged import move_aside, say
from mmpareto_jax.training._run.metrics import records_of
from mmpareto_jax.training._run.processes import first_alone, told


class Resuming:
    """Looks at the checkpoints of a run; nothing is changed before `clear`.

    Attributes:
      step: where it goes on, on all processes; 0: at the beginning.
    """

    def __init__(self, workdir: Path, checkpoints: Checkpoints):
        """Reached by all processes of the run.

        Raises:
          ValueError: none of the checkpoints that it had can be used.
        """
        self._workdir, self._directory = workdir, checkpoints.directory
        self._damaged: dict[int, str] = {}
        self._sound: list[int] = []
        first_alone(lambda: self._look(checkpoints))
        self.step = int(told(str(max(self._sound, default=0)))[0])

    def _look(self, checkpoints: Checkpoints) -> None:
        for step in checkpoints.steps():
            if wrong := checkpoints.damage(step):
                self._damaged[step] = wrong
            else:
                self._sound.append(step)
        if self._sound:
            return
        way_out = (
            f"put one back into {self._directory}, or start anew in another --workdir; "
            "nothing was changed"
        )
        if self._damaged:
            what = "; ".join(f"{step}: {x}" for step, x in self._damaged.items())
            raise ValueError(
                f"workdir {self._workdir}: every checkpoint is damaged ({what}); "
                f"{way_out}"
            )
        if self._had_one():
            raise ValueError(
                f"workdir {self._workdir}: its checkpoints are gone; {way_out}"
            )

    def _had_one(self) -> bool:
        """Whether a checkpoint was complete once.

        That of an epoch is, before the next epoch's scores are recorded.
        """
        if (self._workdir / "result.json").exists():
            return True
        records = records_of(self._workdir)
        if not self._directory.exists():  # it is older than the first record
            return next(records, None) is not None
        return len({r["step"] for r in records if r["split"] == "validation"}) > 1

    def clear(self) -> None:
        """Moves what is damaged out of the way, and says so; in the first process."""
        for step, wrong in self._damaged.items():
            aside = move_aside(self._workdir, self._directory / str(step))
            say(
                f"workdir {self._workdir}: checkpoint {step} is damaged: {wrong}; it "
                f"was moved to {aside}, and the run goes on from step {self.step}"
            )
