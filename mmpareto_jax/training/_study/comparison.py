"""What is compared: methods, learning rates, seeds; and the runs that this takes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmpareto_jax.training._choices import spelled
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._options.groups import refuse_unused
from mmpareto_jax.training._study.run_once import Record, score_of

# Seeds of the tuning runs start here, so that none is also a final run.
_FIRST_TUNING_SEED = 10_000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
      config: of every run, but for method, learning rate and seed.
      methods: the methods, by the names of ``--method``, each once.
      lr_grid: learning rates, each once; each method gets the one that is best for it
        on the validation split, by the mean over `tune_seeds` runs.
      seeds: final runs for each method, 2 to 10,000, with the seeds 0, 1, ...
      tune_seeds: runs for each method and learning rate, 1 to 10,000, with other seeds.

    Raises:
      TypeError: an argument is of another type.
      ValueError: no method or no learning rate, or one of them twice; a method or a
        learning rate that `config` cannot have; too few runs.

    Example:
      >>> from mmpareto_jax.training import Comparison, Config
      >>> plan = Comparison(
      ...     Config(), ("uniform", "mmpareto"), lr_grid=(0.05, 0.1), tune_seeds=1
      ... )
      >>> [(run.method, run.lr, run.seed) for run in plan.tuning()][:2]
      [('uniform', 0.05, 10000), ('uniform', 0.1, 10000)]
      >>> len(plan.final([]))
      20
    """

    config: Config
    methods: tuple[str, ...]
    lr_grid: tuple[float, ...]
    seeds: int = 10
    tune_seeds: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.config, Config):
            raise TypeError(
                f"config: expected a Config, got {type(self.config).__name__}"
            )
        for name, kind in (("methods", str), ("lr_grid", int | float)):
            values = getattr(self, name)
            several = isinstance(values, Sequence) and not isinstance(values, str)
            if not (several and all(isinstance(x, kind) for x in values)):
                expected = "names" if kind is str else "numbers"
                raise TypeError(
                    f"{name}: expected a sequence of {expected}, got {values!r:.60}"
                )
        # As its runs have them: records are found by these names.
        object.__setattr__(self, "methods", tuple(spelled(m) for m in self.methods))
        for name in ("methods", "lr_grid"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different values, got {values}")
        for method in self.methods:
            for lr in self.lr_grid:
                self.run(method, lr, 0)  # raises where it is not valid
        refuse_unused(self.config.given(), self.config.task, self.methods)
        for name, least in (("seeds", 2), ("tune_seeds", 1)):
            number = getattr(self, name)
            if not (isinstance(number, int) and least <= number <= _FIRST_TUNING_SEED):
                raise ValueError(
                    f"{name}: expected {least} to {_FIRST_TUNING_SEED}, got {number}"
                )

    def run(self, method: str, lr: float, seed: int) -> Config:
        """The configuration of one run.

        Args:
          method: its name.
          lr: the learning rate.
          seed: of the run.

        Returns:
          `config` with these.

        Raises:
          ValueError: a value that it cannot have.
        """
        change: dict[str, Any] = {"method": method, "lr": lr, "seed": seed}
        return dataclasses.replace(self.config, **change)

    def tuning(self) -> list[Config]:
        """The runs that choose learning rates.

        Returns:
          Their configurations; none where there is one learning rate only.
        """
        if len(self.lr_grid) == 1:
            return []
        seeds = range(_FIRST_TUNING_SEED, _FIRST_TUNING_SEED + self.tune_seeds)
        return [
            self.run(method, lr, seed)
            for method in self.methods
            for lr in self.lr_grid
            for seed in seeds
        ]

    def final(self, records: Sequence[Record]) -> list[Config]:
        """The runs that are compared.

        Args:
          records: of the tuning runs; of others nothing is read.

        Returns:
          Their configurations, ``seeds`` for each method.
        """
        chosen = self.learning_rates(records)
        return [
            self.run(method, chosen[method], seed)
            for method in self.methods
            for seed in range(self.seeds)
        ]

    def learning_rates(self, records: Sequence[Record]) -> dict[str, float]:
        """The learning rates that the tuning runs choose.

        Args:
          records: of the tuning runs; of others nothing is read.

        Returns:
          Method -> the one with the best mean of the main measure on validation; the
          first of equal ones, and of all where there are no records. One at which runs
          diverged, or ended in scores that are not finite, comes after all at which
          fewer did.
        """

        def rank(method: str, lr: float) -> tuple[float, float]:
            found = [
                score_of(r)
                for r in records
                if (r["method"], r["lr"]) == (method, lr)
                and r["seed"] >= _FIRST_TUNING_SEED
            ]
            # Sorted: the mean is the same in whatever order runs were finished.
            finite = sorted(x for x in found if math.isfinite(x))
            if not finite:
                return 0.0, -math.inf
            return len(finite) / len(found), float(np.mean(finite))

        return {
            method: max(self.lr_grid, key=functools.partial(rank, method))
            for method in self.methods
        }
