"""A report of runs and comparisons: one HTML page that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmpareto_jax._whole_files import write_whole
from mmpareto_jax.training._report import html
from mmpareto_jax.training._report.comparison_figures import comparison_figures
from mmpareto_jax.training._report.overview import overview
from mmpareto_jax.training._report.parts import FAULTS, note, part, reason
from mmpareto_jax.training._report.run_section import (
    RunFiles,
    environment,
    options,
    read_run,
    run_section,
)
from mmpareto_jax.training._run.workdir import read_record
from mmpareto_jax.training._study.records import (
    read_comparison,
    read_measures,
    read_runs,
    read_step_times,
)
from mmpareto_jax.training._study.run_once import Record
from mmpareto_jax.training._study.summary import Row, legend, summarize, table_cells
from mmpareto_jax.training._tasks.criteria import Measure

_CAPTIONS = {
    "scores": "Test scores of every run (dots), mean and standard deviation.",
    "cosines": "How often the gradients of the objectives have which cosine; a "
    "negative one is a conflict.",
    "norms": "Norms of the objectives' gradients by epoch; lines in different "
    "styles are different objectives, the first four.",
    "magnitude": "Quantiles over steps of the factor on the gradients.",
    "sharpness": "Training loss around the end of the runs, along filter-normalised "
    "random directions.",
}


def write_report(workdirs: Sequence[str | Path], out: str | Path) -> Path:
    """Writes one HTML page about runs and comparisons.

    It has everything inside: tables, options, versions and figures (as SVG). It loads
    nothing, runs no script, and shows what is on disk, without computing a model.

    Args:
      workdirs: directories that ``train`` or ``compare`` wrote; finished or not. For
        a comparison, the data that its runs were trained on must be there.
      out: the file; its directory is created if it does not exist.

    Returns:
      The file.

    Raises:
      ValueError: no directory, or one that holds neither or is not readable, or the
        data of a comparison are not there (nothing is written then), or a file that
        cannot be written.
    """
    if not workdirs:
        raise ValueError("report: expected at least one workdir, got none")
    # Each once.
    paths = list({os.path.realpath(w): Path(w) for w in workdirs}.values())
    sections, runs = [], []
    for path, name in zip(paths, _names(paths), strict=True):
        try:
            if (path / "comparison.json").exists():
                kind, content = "Comparison", list(_comparison(path))
            elif (path / "config.json").exists():
                run = read_run(path, name)
                runs.append(run)
                kind, content = "Run", list(run_section(run))
            else:
                raise ValueError(
                    f"workdir {path}: holds neither a run (config.json) nor a "
                    "comparison (comparison.json)"
                )
        except ValueError:
            raise
        except FAULTS as error:
            raise ValueError(
                f"workdir {path}: its files are not readable: {reason(error)}"
            ) from None
        sections.append((f"{kind} {name}", content))
    title = sections[0][0] if len(sections) == 1 else f"{len(sections)} results"
    text = html.page(f"{title} – mmpareto", _body(sections, runs))
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text)
    except OSError as error:
        raise ValueError(f"report: cannot write {out}: {error.strerror}") from None
    return out


def _names(paths: Sequence[Path]) -> list[str]:
    """The directories' own names where these are different, else their paths."""
    names = [Path(os.path.realpath(path)).name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    # A directory's name may be any bytes.
    return [os.fsencode(name).decode(errors="replace") for name in names]


def _body(
    sections: Sequence[tuple[str, list[str]]], runs: Sequence[RunFiles]
) -> Iterator[str]:
    if len(sections) == 1:
        ((title, content),) = sections
        yield f"<h1>{html.escape(title)}</h1>"
        yield from content
        return
    yield f"<h1>{len(sections)} results</h1>"
    links = (
        f'<a href="#part-{i}">{html.escape(title)}</a>'
        for i, (title, _) in enumerate(sections)
    )
    yield f"<p>{' · '.join(links)}</p>"
    if len(runs) > 1:
        yield from part("All of them together", overview(runs))
    for i, (title, content) in enumerate(sections):
        yield f'<h2 id="part-{i}">{html.escape(title)}</h2>'
        yield from content


def _comparison(workdir: Path) -> Iterator[str]:
    comparison, records = read_comparison(workdir), read_runs(workdir)
    measures = read_measures(workdir)
    rows = summarize(comparison, records, measures)
    grid = ", ".join(f"{lr:g}" for lr in comparison.lr_grid)
    how = ""
    if comparison.tuning():
        how = (
            ", the best on validation for each method, by "
            f"{comparison.tune_seeds} runs with other seeds"
        )
    yield (
        f"<p>{len(comparison.methods)} methods on "
        f"{html.escape(comparison.config.task)}, {comparison.seeds} seeds each. "
        f"Learning rate: {grid}{how}.</p>"
    )
    missing = [m for m in comparison.methods if m not in {r.method for r in rows}]
    if missing:
        whole = len(comparison.tuning()) + len(comparison.methods) * comparison.seeds
        yield (
            f'<p class="note">Not complete: {len(records)} of {whole} runs are there. '
            f"Without a row yet: {html.escape(', '.join(missing))}.</p>"
        )
    if rows:
        yield from part("The table", _table(workdir, rows, measures))
        yield from part("The figures", _figures(rows, records, measures))
    varied = ("method", "lr", "seed")
    config = comparison.config.to_dict().items()
    own = {k: x for k, x in config if k not in varied}
    yield options(own, comparison.methods)
    yield from part("The environment", _environment(workdir, records))


def _table(
    workdir: Path, rows: Sequence[Row], measures: Sequence[Measure]
) -> Iterator[str]:
    times, unread = {}, ""
    try:
        times = read_step_times(workdir)
    except ValueError as error:
        unread = str(error)
    there = all(row.method in times for row in rows)
    head, *lines = table_cells(rows, measures, times if there else None)
    yield html.table(head, lines)
    yield note(
        "On test, of the epoch that is best on validation: mean ± standard deviation "
        f"over seeds. {legend(measures)} Columns with “−”: paired differences of the "
        "first measure, with 95 % intervals and p-values that are not corrected for "
        "their number."
    )
    if unread:
        yield note(unread)


def _figures(
    rows: Sequence[Row], records: Sequence[Record], measures: Sequence[Measure]
) -> Iterator[str]:
    drawings = comparison_figures(rows, records, measures)
    yield html.figures((d, _CAPTIONS[k]) for k, d in drawings.items() if d.axes)


def _environment(workdir: Path, records: Sequence[Record]) -> Iterator[str]:
    devices = {str(r["device"]): None for r in records if "device" in r}
    recorded = read_record(workdir / "environment.json")
    yield environment({**recorded, "device": ", ".join(devices) or "not recorded"})
