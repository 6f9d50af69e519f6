"""The options that say where a run computes: no part of its config."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
from typing import Any

# Each has threads of its own.
_MOST_CPU_DEVICES = 1024


@dataclasses.dataclass(frozen=True)
class Devices:
    """What the flags of these names say."""

    mesh: str | None = None
    shard: str | None = None
    device: str | None = None
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    distributed: str | None = None

    @classmethod
    def taken_from(cls, arguments: dict[str, Any]) -> Devices:
        """Takes them out of a command's arguments.

        Raises:
          ValueError: some of the three that belong together are missing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        found = cls(**{name: arguments.pop(name, None) for name in names})
        three = {
            "--coordinator": found.coordinator,
            "--num-processes": found.num_processes,
            "--process-id": found.process_id,
        }
        missing = [flag for flag, value in three.items() if value is None]
        if 0 < len(missing) < 3:
            there = next(flag for flag, value in three.items() if value is not None)
            raise ValueError(f"{there} needs {' and '.join(missing)}, too")
        if len(missing) == 0 and found.distributed:
            raise ValueError("--distributed auto finds the --coordinator itself")
        number, own = found.num_processes, found.process_id
        if number is not None and number < 1:
            raise ValueError(f"--num-processes: expected at least 1, got {number}")
        where = found.coordinator
        if where is not None and not re.fullmatch(r".+:\d+", where):
            raise ValueError(f"--coordinator: expected HOST:PORT, got {where}")
        if number is not None and own is not None and not 0 <= own < number:
            raise ValueError(f"--process-id: expected 0 to {number - 1}, got {own}")
        return found

    @property
    def several_processes(self) -> bool:
        """Whether this process is one of several."""
        return self.coordinator is not None or self.distributed is not None

    @property
    def placement(self) -> dict[str, Any]:
        """What ``train`` and ``evaluate`` take."""
        return {"mesh": self.mesh, "shard": self.shard}

    def start(self) -> None:
        """Tells jax, before anything asks it for a device.

        Raises:
          ValueError: the mesh is not understood, is not a multiple of the processes,
            or there is no such device.
        """
        if not any(dataclasses.astuple(self)):
            return  # jax may wait
        import jax

        from mmpareto_jax.training._run.mesh import sizes_of

        sizes = None if self.mesh is None else sizes_of(self.mesh)
        if self.device:
            jax.config.update("jax_platforms", self.device)
        if self.device == "cpu" and sizes:
            number = self.num_processes or 1
            all_of_them = math.prod(sizes.values())
            if all_of_them % number:
                raise ValueError(
                    f"--mesh: expected a multiple of {number} processes, "
                    f"got {self.mesh}"
                )
            if all_of_them // number > _MOST_CPU_DEVICES:
                raise ValueError(
                    f"--mesh: expected at most {_MOST_CPU_DEVICES} CPU devices in a "
                    f"process, got {self.mesh}"
                )
            jax.config.update("jax_num_cpu_devices", all_of_them // number)
        if self.several_processes:
            from mmpareto_jax._cli.member import join

            join(self.coordinator, self.num_processes, self.process_id)
        try:
            jax.devices()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            if self.device:
                reason = f"jax finds none here ({reason})"
            raise ValueError(f"--device {self.device or 'default'}: {reason}") from None


def check_workers(number: int | None) -> None:
    """Refuses what no host can start.

    Raises:
      ValueError: fewer than one process, or more than eight for each CPU.
    """
    most = 8 * (os.cpu_count() or 1)
    if number is not None and not 1 <= number <= most:
        raise ValueError(
            f"--workers: expected 1 to {most}, eight for each CPU, got {number}"
        )


def add_devices(parser: argparse.ArgumentParser, *, processes: bool) -> None:
    """Adds these flags; those about several processes where `processes`."""
    section = parser.add_argument_group("devices, which may change when a run goes on")
    section.add_argument(
        "--mesh",
        metavar="AXES",
        help="auto: all devices, among which batches are divided; or sizes, as data=8 "
        "or data=4,model=2 (default: one device; of several processes auto)",
    )
    section.add_argument(
        "--shard",
        choices=("params",),
        help="divide parameters and the optimiser's state, too, along data",
    )
    section.add_argument(
        "--device",
        choices=("cpu", "gpu", "tpu"),
        help="(default: what jax finds); cpu makes as many as --mesh asks for",
    )
    if not processes:
        return
    section.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="one of several processes, each with the same command: a free port on the "
        "host of process 0",
    )
    section.add_argument(
        "--num-processes", type=int, metavar="N", help="how many they are"
    )
    section.add_argument(
        "--process-id", type=int, metavar="I", help="which of them, from 0"
    )
    section.add_argument(
        "--distributed",
        choices=("auto",),
        help="several processes that jax finds by itself: Slurm, Open MPI, TPU, GKE",
    )
