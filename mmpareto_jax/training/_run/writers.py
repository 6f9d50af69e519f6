"""Callbacks that write: JSON lines, TensorBoard events, Weights & Biases."""

from __future__ import annotations

import abc
import importlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

import mmpareto_jax as mmp
from mmpareto_jax._whole_files import naming, write_whole
from mmpareto_jax.training._described.names import tag
from mmpareto_jax.training._run.callbacks import Callback, Start
from mmpareto_jax.training._run.damaged import say
from mmpareto_jax.training._run.metrics import keep_records, line, plain
from mmpareto_jax.training._run.tally import has_cut

if TYPE_CHECKING:
    from mmpareto_jax.training._run.result import Result


class _Writer(Callback, abc.ABC):
    """Writes what it hears of as records: a step, a split, and scalars by name."""

    @abc.abstractmethod
    def _record(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Writes one record, of plain values."""

    def on_step(self, step: int, metrics: dict[str, Any]) -> None:
        self._record(step, "train", metrics)

    def on_probe(self, step: int, probe: mmp.Probe) -> None:
        self._record(step, "probe", {k: plain(x) for k, x in probe.scalars().items()})

    def on_epoch(self, step: int, scores: dict[str, float]) -> None:
        self._record(step, "validation", {k: plain(x) for k, x in scores.items()})


class JsonLines(_Writer):
    """Writes ``WORKDIR/metrics.jsonl``, for ``read_metrics``; ``train`` has one.

    A run that goes on drops the records that it writes again: what lies after its
    checkpoint, and a mean that was cut off there. Lines that hold no record are moved
    to ``WORKDIR/damaged``, and a warning says so.

    Example:
      >>> import pathlib, tempfile, types
      >>> from mmpareto_jax.training import Config, JsonLines, read_metrics
      >>> with tempfile.TemporaryDirectory() as name:
      ...     writer, workdir = JsonLines(), pathlib.Path(name)
      ...     start = types.SimpleNamespace(config=Config(), workdir=workdir, step=0)
      ...     writer.on_start(start)
      ...     writer.on_step(1, {"loss/joint": 2.5})
      ...     writer.close()
      ...     read_metrics(workdir)
      [{'step': 1, 'split': 'train', 'loss/joint': 2.5}]
    """

    _file: TextIO | None = None

    def on_start(self, run: Start) -> None:
        is_cut = has_cut(run.workdir, run.step)

        def wanted(record: Mapping[str, Any]) -> bool:
            if record["step"] == run.step:
                return not (is_cut and record["split"] == "train")
            return bool(record["step"] < run.step)

        last = keep_records(run.workdir, wanted)
        if last < run.step and not is_cut:
            say(
                f"workdir {run.workdir}: metrics.jsonl has no record of steps "
                f"{last + 1} to {run.step}, where the run goes on"
            )
        self._path = run.workdir / "metrics.jsonl"
        self._file = self._path.open("a", encoding="utf-8")

    def _record(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        assert self._file is not None
        with naming(self._path):
            self._file.write(line({"step": step, "split": split, **values}))

    def on_save(self, step: int) -> None:  # noqa: ARG002
        assert self._file is not None
        with naming(self._path):
            self._file.flush()
            # The checkpoint outlives the machine, too, and these are not written again.
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            with naming(self._path):
                self._file.close()


class TensorBoard(_Writer):
    """Writes ``WORKDIR/tensorboard``: each record as one event; ``train`` has one.

    Example:
      >>> import pathlib, tempfile, types
      >>> from mmpareto_jax.training import Config, TensorBoard
      >>> with tempfile.TemporaryDirectory() as name:
      ...     writer, workdir = TensorBoard(), pathlib.Path(name)
      ...     start = types.SimpleNamespace(config=Config(), workdir=workdir, step=0)
      ...     writer.on_start(start)
      ...     writer.on_step(1, {"joint+audio/cosine": 0.5})
      ...     writer.close()
      ...     (file,) = (workdir / "tensorboard").iterdir()
      ...     b"train/joint_audio/cosine" in file.read_bytes()
      True
    """

    # That of a SummaryWriter, without its queue: a record is one event, and an error is
    # one where it happens.
    _writer: EventsWriter | None = None

    def on_start(self, run: Start) -> None:
        self._folder = run.workdir / "tensorboard"
        self._folder.mkdir(exist_ok=True)
        # Of a run that goes on in the same second another file.
        self._writer = EventsWriter(str(self._folder / "events"), f".{run.step}")
        # What a run that goes on writes again is hidden.
        first = run.step if has_cut(run.workdir, run.step) else run.step + 1
        began = SessionLog(status=SessionLog.START)
        self._event(first, session_log=began)

    def _record(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        found = [
            Summary.Value(tag=f"{split}/{tag(k)}", simple_value=x)
            for k, x in values.items()
            if x is not None
        ]
        self._event(step, summary=Summary(value=found))

    def _event(self, step: int, **what: Any) -> None:
        assert self._writer is not None
        with naming(self._folder):
            self._writer.write_event(Event(step=step, wall_time=time.time(), **what))

    def on_save(self, step: int) -> None:  # noqa: ARG002
        assert self._writer is not None
        with naming(self._folder):
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            with naming(self._folder):
                self._writer.close()


class WeightsAndBiases(_Writer):
    """Logs to Weights & Biases; needs ``pip install wandb``.

    A run that goes on goes on there, too: by its id, in ``WORKDIR/wandb-id``. Test
    scores are the run's summary.

    Attributes:
      project: where the run is to appear.
      **options: others of ``wandb.init``, such as ``entity``, ``mode`` or ``tags``.

    Raises:
      ImportError: wandb is not installed.

    Example:
      >>> from mmpareto_jax.training import Config, WeightsAndBiases, train
      >>> callback = WeightsAndBiases("papers", mode="offline")  # doctest: +SKIP
      >>> train(Config(), "runs/a", callbacks=[callback])  # doctest: +SKIP
    """

    _run: Any = None

    def __init__(self, project: str, **options: Any):
        self._wandb = importlib.import_module("wandb")
        self._options = {"project": project, **options}
        self._failed = True

    def on_start(self, run: Start) -> None:
        kept = run.workdir / "wandb-id"
        own: dict[str, Any] = {"dir": str(run.workdir), "name": run.workdir.name}
        if run.step and (known := _id_in(kept)):
            own |= {"id": known, "resume": "allow"}
        own["config"] = run.config.to_dict()
        self._run = self._wandb.init(**{**own, **self._options})
        write_whole(kept, self._run.id)

    def _record(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        found = {f"{split}/{k}": x for k, x in values.items() if x is not None}
        self._run.log(found, step=step)

    def on_end(self, result: Result) -> None:
        scores = {f"test/{k}": plain(x) for k, x in result.scores["test"].items()}
        self._run.summary.update(scores)
        self._failed = False

    def close(self) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(self._failed))


def _id_in(path: Path) -> str | None:
    """That of a run there; None where there is none, or it cannot be read."""
    if not path.exists():
        return None
    content = path.read_bytes().decode(errors="replace")
    if re.fullmatch(r"[\w.-]+", content):
        return content
    say(f"unreadable {path}: the run goes on there as a new one")
    return None
