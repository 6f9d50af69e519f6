"""What a step of each method costs, in units of the plain sum's."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence

import jax

from mmpareto_jax.data import train_batches
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._run.step import Program, make_program
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.registry import make_task


def step_times(
    configs: Sequence[Config], *, task: Task | None = None, repeats: int = 40
) -> dict[str, float]:
    r"""Wall time of a compiled step, relative to the gradient of the summed losses.

    .. math:: \frac{\operatorname{median}_i t_i^{\text{method}}}
        {\operatorname{median}_i t_i^{\text{plain}}}

    All steps are timed in turn, and medians are compared, so that other load on the
    machine falls on all of them alike. The first step of each, which compiles, is not
    timed.

    Args:
      configs: one for each method; the plain sum has the other options of the first.
      task: what they learn; None: what they name.
      repeats: steps of each that are timed, at least 1.

    Returns:
      Method -> ratio.

    Raises:
      ValueError: the data are not there, or a method does not fit its model or task.
      IndexError: there are no configs.
    """
    plain = dataclasses.replace(configs[0], method="uniform")
    summed = task or make_task(plain)
    batch = next(
        train_batches(summed.data["train"], batch_size=configs[0].batch_size, seed=0)
    )
    batch = jax.device_put(batch)
    programs: dict[str, Program] = {
        c.method: make_program(c, task or make_task(c)) for c in configs
    }
    programs[""] = make_program(plain, summed, plain=True)
    states = {name: program.state for name, program in programs.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            states[name], _ = jax.block_until_ready(program.step(states[name], batch))
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(x[1:]) for name, x in times.items()}
    return {name: x / medians[""] for name, x in medians.items() if name}
