"""The arguments of ``mmpareto compare`` and ``sweep``."""

from __future__ import annotations

import argparse
import typing
from typing import Any

from mmpareto_jax._cli import studies as _studies
from mmpareto_jax._cli.cache import add_cache
from mmpareto_jax._cli.listed import listed, methods_named
from mmpareto_jax._cli.options import add_options
from mmpareto_jax._cli.paths import path
from mmpareto_jax.training._choices import TaskName


def add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="compare methods, each with its own learning rate, over seeds",
        allow_abbrev=False,
    )
    compare.add_argument(
        "task",
        nargs="?",
        choices=typing.get_args(TaskName),
        metavar="TASK",
        help="what to learn: mmpareto datasets lists it, or module:function returns it "
        "(default: av-digits)",
    )
    compare.add_argument(
        "--methods",
        type=methods_named,
        metavar="A,B,...",
        help=f"(default: {','.join(_studies.COMPARED)}; "
        "for several tasks single-task instead of joint; for other losses neither)",
    )
    compare.add_argument(
        "--lr-grid",
        type=listed(float),
        default=(0.05, 0.1, 0.2, 0.4),
        metavar="X,Y,...",
        help="each method gets the best one on validation (default: 0.05,0.1,0.2,0.4)",
    )
    compare.add_argument(
        "--seeds", type=int, default=10, help="final runs of a method (default: 10)"
    )
    compare.add_argument(
        "--tune-seeds",
        type=int,
        default=3,
        help="tuning runs for each learning rate (default: 3)",
    )
    _division(compare)
    compare.add_argument(
        "--workdir",
        type=path,
        help="where all is written; runs that are there already are not repeated "
        "(default: runs/compare-TASK)",
    )
    compare.add_argument(
        "--config", type=path, metavar="FILE", help="TOML or JSON; flags go first"
    )
    add_cache(compare)
    of_runs = ("task", "method", "lr", "seed", "log_every", "probe_every")
    add_options(compare, without=of_runs)


def add_sweep(commands: Any) -> None:
    sweep = commands.add_parser(
        "sweep",
        help="map where conflicts matter: MMPareto against uniform × γ, on av-digits",
        allow_abbrev=False,
    )
    sweep.add_argument(
        "--settings", type=listed(str), metavar="A,B,...", help="(default: all)"
    )
    sweep.add_argument(
        "--seeds", type=int, default=8, help="final runs of a method (default: 8)"
    )
    _division(sweep)
    add_cache(sweep)
    sweep.add_argument(
        "--workdir", type=path, default="runs/sweep", help="(default: %(default)s)"
    )


def _division(command: argparse.ArgumentParser) -> None:
    """How runs are divided among devices, processes and hosts."""
    command.add_argument(
        "--workers",
        type=int,
        help="processes; they take the GPUs in turn, or a thread each (default: one "
        "for each GPU, or 2)",
    )
    command.add_argument(
        "--together",
        type=_together,
        default="auto",
        metavar="N",
        help="runs of a method side by side in one program; auto: what is faster on "
        "this device (default: auto)",
    )
    command.add_argument(
        "--num-processes",
        type=int,
        default=1,
        metavar="N",
        help="of this command, on any hosts that see --workdir; each takes a share of "
        "the runs (default: 1)",
    )
    command.add_argument(
        "--process-id",
        type=int,
        default=0,
        metavar="I",
        help="which of them this is, from 0, which tells the result (default: 0)",
    )
    command.add_argument(
        "--patience",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="without a new run, until the other processes are given up; longer than "
        "a run (default: 3600)",
    )


def _together(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected auto or at least 1, got {text}")
    return int(text)
