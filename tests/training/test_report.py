"""Tests for the report: what is on the page is what is on disk, and nothing else."""

import dataclasses
import html.parser
import json
import os
import re
import shutil

import chromium
import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from mmpareto_jax.cli import main
from mmpareto_jax.training import (
    Comparison,
    Config,
    Measure,
    draw_comparison,
    draw_figures,
    make_task,
    markdown,
    read_config,
    read_metrics,
    summarize,
    write_report,
)
from mmpareto_jax.training._report.drawing import COLOURS, panels, plain_log, save
from mmpareto_jax.training._report.overlay import conflicts, curves
from mmpareto_jax.training._report.run_figures import run_figures
from mmpareto_jax.training._report.run_section import RunFiles, read_run, run_section

ODD = "a \"b\" 'c' & <script>alert(1) <!-- $x_$"
PLAN = Comparison(
    Config(task="multi-digits", train_examples=64, width=8),
    ("single-task", "uniform", "mmpareto"),
    (0.1, 0.2),
    seeds=2,
    tune_seeds=1,
)


class Page(html.parser.HTMLParser):
    """What a page holds.

    Attributes:
      tables: each as lines of texts.
      tags: name -> the attributes of each element.
      text: all of it, without the markup.
    """

    def __init__(self, path):
        super().__init__()
        self.tables, self.tags, self.text = [], {}, ""
        self._cell = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.setdefault(tag, []).append(dict(attrs))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self._cell)
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell += data

    @property
    def captions(self):
        return re.findall(r"<figcaption>(.*?)</figcaption>", self.source, re.DOTALL)


def report(workdirs, tmp_path):
    return Page(write_report(workdirs, tmp_path / "new" / "page.html"))


def copy(run, directory, *without):
    """The run in another place, without some of its files."""
    ignored = shutil.ignore_patterns("checkpoints", "tensorboard", *without)
    return shutil.copytree(run.workdir, directory, ignore=ignored)


def compared(directory, plan=PLAN, keep=lambda record: True):
    """A comparison as ``compare`` leaves it, with scores drawn by chance."""
    rng = np.random.default_rng(0)
    records = []
    for config in (*plan.tuning(), *plan.final([])):
        left, right = rng.uniform(0.4, 0.9, 2)
        scores = {"accuracy/mean": (left + right) / 2}
        scores |= {"accuracy/left": left, "accuracy/right": right}
        group = {"conflict": 0.25, "cosines": [1] * 40, "magnitude": [1.0] * 5}
        group |= {"norms": {"left": [1.0, 2.0], "right": [2.0, 1.0]}}
        own = {} if config.method == "single-task" else {"sharing": group}
        record = {"method": config.method, "lr": config.lr, "seed": config.seed}
        record |= {"step": 4, "validation": scores, "test": scores, "probe": {}}
        record |= {"groups": own, "sharpness": [1.0] * 7}
        records.append(record)
    # Tuning ends before what it chooses begins.
    chosen = plan.learning_rates(records)
    for record in records:
        if record["seed"] < 10_000:
            record["lr"] = chosen[record["method"]]
    records = [record for record in records if keep(record)]
    directory.mkdir()
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (directory / "runs.jsonl").write_text(lines)
    path = directory / "comparison.json"
    path.write_text(json.dumps(dataclasses.asdict(plan)))
    return records


def test_a_run(run, tmp_path):
    page = report([run.workdir], tmp_path)
    assert "<h1>Run whole</h1>" in page.source
    scores, conflicts, options, environment = page.tables
    result = json.loads((run.workdir / "result.json").read_text())
    assert scores[0] == ["", "validation", "test"]
    assert scores[1:] == [
        [
            f"{m['title']} ↑, %",
            *(f"{100 * result['scores'][s][m['name']]:.1f}" for s in scores[0][1:]),
        ]
        for m in result["measures"]
    ]
    assert [line[0] for line in scores[1:]] == [
        "multimodal ↑, %",
        "audio ↑, %",
        "visual ↑, %",
    ]
    assert f"Scores of step {run.step}, the best on validation." in page.text
    assert conflicts[1:] == [
        [f"{where} ({objectives})", f"{100 * share:.1f}"]
        for where, objectives, share in result["conflicts"].values()
    ]
    assert {k: value for k, value, _ in options[1:]} == {
        k: str(x)
        for k, x in read_config(run.workdir).to_dict().items()
        if k
        not in ("alpha", "primary", "sharing", "gradients", "right_noise", "num_tasks")
    }
    changed = (
        "Not by default: train_examples = 64, steps = 7, batch_size = 16, lr = 0.02"
    )
    assert changed in page.text
    recorded = json.loads((run.workdir / "config.json").read_text())
    versions = recorded.pop("versions")
    del recorded["config"], recorded["measures"], recorded["objectives"]
    again = recorded.pop("resumed", [])  # by another test, which has the same run
    shown = dict(environment)
    assert shown.pop("resumed", "") == "; ".join(
        f"{x['started']} on {x['device']}" for x in again
    )
    assert shown == {k: str(x) for k, x in (recorded | versions).items()}
    starts = [" ".join(caption.split()[:2]) for caption in page.captions]
    assert starts == ["Loss and", "Cosine of", "Share of", "Norms of"]
    assert len(page.tags["svg"]) == 4
    # Text stays text: titles and legends can be searched.
    assert "joint+audio" in page.text


def test_several_runs_and_a_comparison(run, tmp_path):
    other = copy(run, tmp_path / "other")
    record = json.loads((other / "config.json").read_text())
    record["config"]["seed"] = 1
    del record["config"]["modalities"]  # an option that is newer than the run
    (other / "config.json").write_text(json.dumps(record))
    compared(tmp_path / "comparison")
    # A directory that is named twice is there once.
    workdirs = [run.workdir, other, tmp_path / "comparison", other / "."]
    page = report(workdirs, tmp_path)
    assert "<h1>3 results</h1>" in page.source
    for number, name in enumerate(("Run whole", "Run other", "Comparison comparison")):
        assert f'<a href="#part-{number}">{name}</a>' in page.source
        assert f'<h2 id="part-{number}">{name}</h2>' in page.source
    overview, differ = page.tables[:2]
    shown = [f"{100 * x:.1f}" for x in (run.scores["validation"]["accuracy/joint"],)]
    shown += [f"{100 * run.scores['test'][m.name]:.1f}" for m in run.measures]
    assert overview == [
        ["run", "method", "lr", "seed", "validation: multimodal ↑, %"]
        + [f"test: {x} ↑, %" for x in ("multimodal", "audio", "visual")],
        ["whole", "mmpareto", "0.02", "0", *shown],
        ["other", "mmpareto", "0.02", "1", *shown],
    ]
    assert differ == [["option", "whole", "other"], ["seed", "0", "1"]]
    assert page.captions[0] == "Measures on validation, by step."


def test_runs_with_the_same_name_are_told_apart(run, tmp_path):
    paths = [copy(run, tmp_path / x / "run", "metrics.jsonl") for x in ("a", "b")]
    page = report(paths, tmp_path)
    assert [line[0] for line in page.tables[0][1:]] == [str(path) for path in paths]


def test_measures_of_a_run_without_result_share_the_columns(run, tmp_path):
    older = copy(run, tmp_path / "older", "result.json")
    page = report([older, run.workdir], tmp_path)
    head, first, second = page.tables[0]
    assert head[4:] == ["validation: multimodal ↑, %"] + [
        f"test: {x} ↑, %" for x in ("multimodal", "audio", "visual")
    ]
    assert first[4] == second[4]
    assert first[5:] == ["–"] * 3


def test_an_older_run_reports_its_best_epoch(run, tmp_path):
    older = copy(run, tmp_path / "older", "result.json")
    record = json.loads((older / "config.json").read_text())
    del record["device"], record["started"], record["measures"]
    (older / "config.json").write_text(json.dumps(record))
    page = report([older], tmp_path)
    best = run.scores["validation"]
    assert page.tables[0] == [["", "validation"]] + [
        [f"{x} ↑, %", f"{100 * best[f'accuracy/{x}']:.1f}"]
        for x in ("joint", "audio", "visual")
    ]
    assert f"Scores of step {run.step}, the best on validation." in page.text
    assert "No test scores" in page.text
    assert len(page.captions) == 4


def test_runs_that_have_not_ended(run, tmp_path):
    started = copy(run, tmp_path / "started", "result.json", "metrics.jsonl")
    page = report([started], tmp_path)
    assert "No test scores" in page.text
    assert "No step is recorded yet" in page.text
    assert page.captions == []

    begun = copy(run, tmp_path / "begun", "result.json")
    lines = (begun / "metrics.jsonl").read_text().splitlines(keepends=True)
    (begun / "metrics.jsonl").write_text("".join(lines[:3]) + lines[3][:30])
    page = report([begun], tmp_path)
    assert [len(x) for x in (page.tables, page.captions)] == [2, 4]

    stopped = copy(run, tmp_path / "stopped")
    result = json.loads((stopped / "result.json").read_text())
    result |= {"finished": False, "checkpoint": "latest"}
    result["scores"]["test"]["accuracy/audio"] = None  # was not a number
    (stopped / "result.json").write_text(json.dumps(result))
    page = report([stopped], tmp_path)
    assert "stopped before its end" in page.text
    assert f"Scores of step {run.step}, the latest." in page.text
    assert page.tables[0][2][2] == "–"
    assert len(report([started, begun], tmp_path).captions) == 4


def test_a_comparison(tmp_path):
    records = compared(tmp_path / "done")
    times = {method: 1.0 + len(method) for method in PLAN.methods}
    measures = make_task(PLAN.config).measures
    rows = summarize(PLAN, records, measures)
    for known in ({}, times):
        if known:
            (tmp_path / "done" / "step_times.json").write_text(json.dumps(known))
            versions = {"versions": {"jax": "1.2.3"}, "started": "yesterday"}
            path = tmp_path / "done" / "environment.json"
            path.write_text(json.dumps(versions))
        page = report([tmp_path / "done"], tmp_path)
        lines = markdown(rows, measures, known).splitlines()
        expected = [line.removeprefix("| ")[:-2].split(" | ") for line in lines]
        found = page.tables[0]
        assert [found[0], *found[1:]] == [expected[0], *expected[2:]]
    assert "Learning rate: 0.1, 0.2, the best on validation for each" in page.text
    assert {line[0] for line in page.tables[1]} >= {"task", "width"}
    assert not {line[0] for line in page.tables[1]} & {"method", "lr", "seed"}
    assert dict(page.tables[2]) == {
        "started": "yesterday",
        "device": "not recorded",
        "jax": "1.2.3",
    }
    assert len(page.captions) == 5


def test_comparisons_that_are_not_complete(tmp_path):
    def all_but_one(record):
        return (record["method"], record["seed"]) != ("mmpareto", 1)

    compared(tmp_path / "most", keep=all_but_one)
    page = report([tmp_path / "most"], tmp_path)
    assert [line[0] for line in page.tables[0][1:]].count("mmpareto") == 0
    assert "Not complete: 11 of 12 runs are there." in page.text
    assert "Without a row yet: mmpareto." in page.text

    alone = dataclasses.replace(PLAN, methods=("single-task", "mmpareto"))
    compared(tmp_path / "alone", alone, lambda r: r["method"] == "single-task")
    page = report([tmp_path / "alone"], tmp_path)
    assert [line[0] for line in page.tables[0]] == ["method", "single-task"]
    assert len(page.captions) == 2  # there are no gradients to combine

    compared(tmp_path / "begun", keep=lambda record: False)
    page = report([tmp_path / "begun"], tmp_path)
    assert "Not complete: 0 of 12 runs are there." in page.text
    assert page.captions == []


@pytest.fixture(scope="module")
def path(run, tmp_path_factory):
    """A report with everything in it, of directories with odd names."""
    directory = tmp_path_factory.mktemp("pages")
    odd = copy(run, directory / ODD)
    record = json.loads((odd / "config.json").read_text())
    record["config"]["data"] = f"/{ODD}"
    (odd / "config.json").write_text(json.dumps(record))
    compared(directory / "漢字 😀")
    workdirs = [run.workdir, odd, directory / "漢字 😀"]
    return write_report(workdirs, directory / "page.html")


def test_odd_names_are_text(path):
    """In every place: headings, links, tables, legends, attributes."""
    page = Page(path)
    assert "script" not in page.tags
    assert page.text.count(f"Run {ODD}") == 2
    assert f"mmpareto: {ODD}" in page.text  # in a figure
    assert page.text.count(f"data = /{ODD}") == 1
    assert ["data", "None", f"/{ODD}"] in page.tables[1]
    assert page.text.count("Comparison 漢字 😀") == 2


def test_a_name_may_be_any_bytes(run, tmp_path):
    odd = copy(run, tmp_path / os.fsdecode(b"b\xff \xf0\x9f\x98\x80"))
    page = report([run.workdir, odd], tmp_path)
    assert "mmpareto: b\ufffd 😀" in page.text


def test_the_page_needs_nothing_but_itself(path):
    page = Page(path)
    assert not set(page.tags) & {"script", "link", "iframe", "object", "embed", "img"}
    policy = page.tags["meta"][1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'")
    assert not re.search(r"https?:|@import|javascript:", page.source)
    named = {a["id"] for x in page.tags.values() for a in x if "id" in a}
    wanted = set(re.findall(r"url\(#([^)]*)\)", page.source))
    assert len(re.findall(r"url\(", page.source)) > 0
    assert not re.findall(r"url\([^#]", page.source)
    for attributes in (a for x in page.tags.values() for a in x):
        assert "src" not in attributes
        for key in {"href", "xlink:href"} & set(attributes):
            assert attributes[key].startswith(("#", "data:image/png;base64,"))
            wanted |= set(re.findall(r"^#(.*)", attributes[key]))
    assert wanted <= named


def test_long_runs_make_no_large_pages(run, tmp_path):
    long = copy(run, tmp_path / "long", "result.json")
    record = read_metrics(run.workdir)[0]
    # Of records that are means, there is also how far they reach down.
    reach = {"joint+audio/cosine_min": -0.9, "joint+visual/cosine_min": -0.9}
    lines = (json.dumps(record | reach | {"step": i + 1}) for i in range(10_000))
    (long / "metrics.jsonl").write_text("\n".join(lines))
    page = report([long], tmp_path)
    assert len(page.source) < 1_000_000
    assert page.tags["image"]


def test_the_command(run, tmp_path, monkeypatch, capsys):
    workdir = copy(run, tmp_path / "run", "metrics.jsonl")  # nothing to draw
    assert main(["report", str(workdir)]) == 0
    assert capsys.readouterr().out == f"{workdir / 'report.html'}\n"
    assert Page(workdir / "report.html").tables
    monkeypatch.chdir(tmp_path)
    assert main(["report", "run", str(shutil.copytree(workdir, tmp_path / "b"))]) == 0
    assert capsys.readouterr().out == "report.html\n"
    assert main(["report", "run", "--out", "deep/x.html"]) == 0
    assert (tmp_path / "deep" / "x.html").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds neither a run (config.json) nor a comparison"),
        ({"config.json": "{"}, "unreadable config.json: "),
        ({"config.json": "[]"}, "unreadable config.json: expected an object, got list"),
        ({"config.json": "{}"}, "unreadable config.json: holds no config"),
        ({"config.json": b"\xff"}, "unreadable config.json: "),
        ({"comparison.json": "{"}, "unreadable comparison.json: "),
        ({"comparison.json": '{"config": {"new": 1}}'}, "without methods"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(files, message, tmp_path, capsys):
    bad = tmp_path / "bad"
    bad.mkdir()
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (bad / name).write_bytes(data)
    out = tmp_path / "page.html"
    assert main(["report", str(bad), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert f"workdir {bad}: " in captured.err
    assert message in captured.err
    assert not out.exists()


def test_other_mistakes(run, tmp_path, capsys):
    workdir = copy(run, tmp_path / "run", "metrics.jsonl")
    with pytest.raises(ValueError, match="report: expected at least one workdir"):
        write_report([], tmp_path / "page.html")
    for arguments, message in (
        (["--out", str(tmp_path)], f"report: cannot write {tmp_path}: Is a directory"),
        (["--out", f"{workdir}/config.json/x"], "report: cannot write"),
        (["--ou", "x"], "unknown option --ou; did you mean --out?"),
    ):
        assert main(["report", str(workdir), *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["report"]) == 2
    assert "arguments are required: WORKDIR" in capsys.readouterr().err


# --- In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.BINARY is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    with chromium.browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light")]
)
def test_in_a_browser(browser, path, width, scheme):
    browser.open(path, width, scheme)
    value = browser.value
    assert value("document.title") == "3 results – mmpareto"
    # Open all, so that everything has a size.
    value("document.querySelectorAll('details').forEach(d => { d.open = true }); 0")

    def sizes(selector):
        return value(
            f"[...document.querySelectorAll({selector!r})].map(x => "
            "x.getBoundingClientRect()).map(r => [r.width, r.height])"
        )

    # Two of all runs, four of each and three of the comparison.
    assert len(sizes("table")) == 2 + 2 * 4 + 3
    assert len(sizes("figure > div > svg")) == 2 + 2 * 4 + 5
    assert min(x for size in sizes("table, tr, summary") for x in size) > 10
    assert min(x for size in sizes("figure > div > svg") for x in size) > 100
    # What is wide scrolls inside; the page itself does not, and nothing sticks out.
    assert value("document.documentElement.scrollWidth") == width
    assert max(across for across, _ in sizes(".scroll, p, h1, h2, h3")) < width
    # Names are names, and clips and markers are found.
    assert value("document.querySelectorAll('script').length") == 0
    assert ODD in value("document.body.textContent")
    uses = "[...document.querySelectorAll('svg use')]"
    assert value(f"{uses}.length") > 50
    assert value(f"{uses}.filter(x => !document.querySelector(x.href.baseVal))") == []
    # The lines of the axes have the colour of the text.
    colours = value(
        "['svg path[style*=currentColor]', 'svg text', 'body'].map(x => "
        "getComputedStyle(document.querySelector(x))).map(s => [s.stroke, s.fill, "
        "s.color])"
    )
    (line, _, _), (_, text, _), (_, _, body) = colours
    assert line == text == body
    assert (sum(map(int, re.findall(r"\d+", body))) > 400) == (scheme == "dark")

    methods = {method for method, _ in browser.events}
    assert not methods & {"Runtime.exceptionThrown", "Runtime.consoleAPICalled"}
    assert "Log.entryAdded" not in methods
    asked = [
        params["request"]["url"]
        for method, params in browser.events
        if method == "Network.requestWillBeSent"
    ]
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}


@pytest.mark.slow
def test_the_browser_tests_would_see_a_mistake(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://127.0.0.1:9/x.png'><script>nothing()</script>")
    browser.open(page)
    methods = {method for method, _ in browser.events}
    assert "Runtime.exceptionThrown" in methods
    asked = [
        params["request"]["url"]
        for method, params in browser.events
        if method == "Network.requestWillBeSent"
    ]
    assert "http://127.0.0.1:9/x.png" in asked


# --- What people see


def copied(run, directory, name, **options):
    """The run under another name and with other options."""
    path = copy(run, directory / name)
    record = json.loads((path / "config.json").read_text())
    record["config"] |= options
    (path / "config.json").write_text(json.dumps(record))
    return path


def rewritten(path, change):
    """The run's metrics, each record changed."""
    records = [json.dumps(change(r)) for r in read_metrics(path)]
    (path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in records))
    return path


def as_task(path, task):
    """The run as one of another task: other measures, in another unit."""
    names = {"accuracy/joint": "score/mean", "accuracy/audio": "error/depth"}

    def change(record):
        return {names.get(k, k): x for k, x in record.items()}

    result = json.loads((path / "result.json").read_text())
    result["scores"] = {k: change(x) for k, x in result["scores"].items()}
    result["measures"] = [
        {"name": "score/mean", "title": "score", "higher": True, "percent": False},
        {"name": "error/depth", "title": "depth", "higher": False, "percent": False},
    ]
    (path / "result.json").write_text(json.dumps(result))
    return rewritten(path, change)


def test_runs_of_unlike_tasks_have_a_table_each(run, tmp_path):
    paths = [copied(run, tmp_path, name) for name in ("a", "b")]
    other = copied(run, tmp_path, "other", task="scenes")
    page = report([paths[0], as_task(other, "scenes"), paths[1]], tmp_path)
    assert "<h3>Runs of av-digits</h3>" in page.source
    assert "<h3>Runs of scenes</h3>" in page.source
    digits, scenes = page.tables[:2]
    assert [line[0] for line in digits] == ["run", "a", "b"]
    assert [line[0] for line in scenes] == ["run", "other"]
    assert scenes[0][4:] == ["validation: score ↑", "test: score ↑", "test: depth ↓"]
    # No column is of another task.
    assert "–" not in {cell for line in digits + scenes for cell in line}
    assert "↑ more is better; shares are in %." in page.text
    assert "↑ more is better; ↓ less is better; the score is 100 times" in page.text


def test_measures_and_conflicts_of_several_runs_are_overlaid(run, tmp_path):
    paths = [copied(run, tmp_path, name, seed=i) for i, name in enumerate("ab")]
    page = report(paths, tmp_path)
    assert page.captions[:2] == [
        "Measures on validation, by step.",
        "Share of conflicting steps, by step; where gradients are combined.",
    ]
    first, second = page.source.split("<figure>")[1:3]
    for title in ("multimodal ↑", "audio ↑", "visual ↑"):
        assert title in first
    for group in ("joint+audio", "joint+visual"):
        assert group in second
    for figure in (first, second):
        assert "mmpareto: a" in figure
        assert "mmpareto: b" in figure
    # What one run alone has is not overlaid.
    alone = rewritten(
        copied(run, tmp_path, "alone"),
        lambda r: {k: x for k, x in r.items() if "conflict" not in k and "io" not in k},
    )
    page = report([alone, paths[0]], tmp_path)
    assert "Share of conflicting steps, by step" not in page.text
    assert "audio ↑" not in page.source.split("<figure>")[1].split("</figure>")[0]


def test_the_shares_that_are_drawn_are_those_of_the_run():
    records = [
        {"step": i + 1, "split": "train", "joint+a/conflict": i % 4 == 0}
        for i in range(240)
    ]
    (axis,) = conflicts({"a": records, "b": records[:3]}, ["joint+a"]).axes
    first, second = axis.lines
    assert first.get_xdata()[-1] == 240
    assert len(first.get_xdata()) == 30
    np.testing.assert_allclose(first.get_ydata(), 25.0)
    np.testing.assert_allclose(second.get_ydata(), [100.0, 0.0, 0.0])
    # Those of records that are means over unequal numbers of steps.
    means = [
        {"step": 30 * i, "steps": 10 * i, "split": "train", "joint+a/conflict": share}
        for i, share in ((1, 0.1), (2, 0.7))
    ] * 30
    (axis,) = conflicts({"a": means}, ["joint+a"]).axes
    np.testing.assert_allclose(axis.lines[0].get_ydata(), 50.0)


def pixels(figure, colour):
    """How many pixels of the figure, without its legend, have about this colour."""
    figure.dpi = 130  # as in the files
    for legend in figure.legends:
        legend.set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    return int((abs(image - to_rgb(colour)) < 0.1).all(axis=-1).sum())


@pytest.mark.parametrize("num", [2, 3, 5])
def test_weights_that_are_equal_are_all_seen(num):
    names = [f"task{i}" for i in range(num)]
    record = {f"loss/{name}": 1.0 for name in names}
    record |= {f"all/weight/{name}": 1 / num for name in names}
    record |= {f"all/norm/{name}": 1.0 for name in names} | {"all/cosine": 0.5}
    steps = [record | {"step": i, "split": "train"} for i in range(40)]
    figure = run_figures(steps)["weights"]
    seen = [pixels(figure, colour) for colour in COLOURS[:num]]
    assert min(seen) > 40


def test_runs_that_are_equal_are_both_seen():
    steps = [{"step": i, "split": "validation", "accuracy/x": 0.5} for i in range(9)]
    figure = curves({"a": steps, "b": steps}, [Measure("accuracy/x", "x")])
    assert min(pixels(figure, colour) for colour in COLOURS[:2]) > 200


MANY = "+".join(f"example{i}" for i in range(1000))


def test_a_group_of_a_thousand_objectives_has_a_short_name(run, tmp_path):
    def change(record):
        return {k.replace("joint+audio", MANY): x for k, x in record.items()}

    path = rewritten(copied(run, tmp_path, "many"), change)
    other = rewritten(copied(run, tmp_path, "more"), change)
    result = json.loads((path / "result.json").read_text())
    where, _, share = result["conflicts"].pop("joint+audio")
    result["conflicts"][MANY] = [where, MANY.replace("+", ", "), share]
    (path / "result.json").write_text(json.dumps(result))
    page = report([path, other], tmp_path)
    assert "example0+example1+…+example999 (1000)" in page.text
    cells = [cell for table in page.tables for line in table for cell in line]
    assert any("example0, example1, …, example999 (1000)" in cell for cell in cells)
    assert "example500" not in page.source


def test_a_comparison_of_such_a_group(tmp_path):
    directory = tmp_path / "many"
    compared(directory)
    path = directory / "runs.jsonl"
    path.write_text(path.read_text().replace('"sharing"', f'"{MANY}"'))
    page = report([directory], tmp_path)
    assert "conflicts, example0+example1+…+example999 (1000) %" in page.tables[0][0]
    assert "example500" not in page.source


def test_a_legend_has_an_end():
    names = [f"a-long-name-of-an-objective-{'x' * 60}-{i}" for i in range(300)]
    record = {"step": 1, "split": "train", "all/cosine": 0.5}
    for name in names:
        record |= {f"loss/{name}": 1.0, f"all/weight/{name}": 0.1}
        record |= {f"all/norm/{name}": 1.0}
    for name, figure in run_figures([record, record | {"step": 2}]).items():
        for legend in [*figure.legends, *(axis.get_legend() for axis in figure.axes)]:
            texts = [text.get_text() for text in legend.get_texts()] if legend else []
            assert len(texts) <= 20, name
            assert max(map(len, texts), default=0) <= 56, name
    *_, last = run_figures([record])["weights"].legends[0].get_texts()
    assert last.get_text() == "… and 281 more"


DOLLARS = "$a_{$"


def with_dollars(path):
    """The file, with a name that would be a broken formula."""
    path.write_text(
        re.sub(r"\b(audio|left|sharing)\b", lambda _: DOLLARS, path.read_text())
    )


def test_names_are_no_formulas(run, tmp_path):
    """Of objectives, groups and measures, in every figure of a run and of several."""
    runs = [copied(run, tmp_path, name) for name in "ab"]
    for path in runs:
        with_dollars(path / "metrics.jsonl")
        with_dollars(path / "result.json")
    assert len(draw_figures(runs[0])) == 4
    assert f">{DOLLARS}</text>" in report(runs, tmp_path).source


def test_names_in_a_comparison_are_no_formulas(tmp_path):
    compared(tmp_path / "x")
    with_dollars(path := tmp_path / "x" / "runs.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    measures = [Measure(f"accuracy/{DOLLARS}", DOLLARS)]
    rows = summarize(PLAN, records, measures)
    assert len(draw_comparison(rows, records, measures, tmp_path / "figures")) == 5


def test_numbers_at_a_logarithmic_axis_are_formulas(tmp_path):
    figure, (axis,) = panels(1)
    axis.plot([1, 2], [1e-5, 1e5])
    axis.set(yscale="log", title=DOLLARS, ylabel="$x$")
    plain_log(axis.yaxis)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        save(figure, tmp_path / "x.svg")
    svg = re.sub("<!--.*?-->", "", (tmp_path / "x.svg").read_text(), flags=re.DOTALL)
    assert f">{DOLLARS}</text>" in svg
    assert ">$x$</text>" in svg
    assert "mathdefault" not in svg
    assert svg.count("font-size: 7px") >= 6  # exponents


def test_the_best_epoch_of_an_error_is_the_least():
    angle = {"split": "validation", "mean_angle/x": 0.0}
    scores = [angle | {"step": i, "mean_angle/x": abs(i - 3)} for i in range(6)]
    found = RunFiles("x", {}, (), {}, {}, scores)
    assert found.best["step"] == 3
    assert [m.higher for m in found.measures] == [False]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_unlike_tasks_and_long_names_stay_within_the_window(
    browser, run, tmp_path, width
):
    long = "a-name-without-a-blank-that-says-all-there-is-to-say-" * 3
    paths = [copied(run, tmp_path, f"{long}{i}", seed=i) for i in range(3)]
    other = as_task(copied(run, tmp_path, "other", task="scenes"), "scenes")
    compared(tmp_path / "compared")
    many = rewritten(
        copied(run, tmp_path, "many"),
        lambda r: {k.replace("joint+audio", MANY): x for k, x in r.items()},
    )
    workdirs = [*paths, other, tmp_path / "compared", many]
    browser.open(write_report(workdirs, tmp_path / "page.html"), width)
    assert browser.value("document.documentElement.scrollWidth") == width
    across = browser.value(
        "[...document.querySelectorAll('.scroll, p, h1, h2, h3, figcaption')]"
        ".map(x => x.getBoundingClientRect().right)"
    )
    assert max(across) <= width
    # A long name leaves room for what stands beside it, and is whole.
    names = browser.value(
        "[...document.querySelectorAll('tbody th.long')]"
        ".map(x => [x.getBoundingClientRect().width, x.textContent])"
    )
    assert {text for _, text in names} >= {f"{long}{i}" for i in range(3)}
    assert max(size for size, _ in names) < 0.6 * width


def test_a_run_that_was_stopped_knows_which_way_is_better(tmp_path):
    """A measure of a user's own, of which less is better, before any result."""
    measure = {"name": "error", "title": "error", "higher": False, "percent": False}
    config = {"config": Config().to_dict(), "measures": [measure]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    records = [
        {"step": s, "split": "validation", "loss/x": 1.0, "error": e}
        for s, e in ((1, 3.0), (2, 1.0), (3, 2.0))
    ]
    lines = "".join(f"{json.dumps(r)}\n" for r in records)
    (tmp_path / "metrics.jsonl").write_text(lines)
    found = read_run(tmp_path, "run")
    assert found.best["step"] == 2
    assert "error ↓" in "".join(run_section(found))


MARKUP = "<script>alert(1)</script>"
FAULTY = [
    ("result.json", lambda text: text[:9], "unreadable result.json"),
    ("result.json", lambda _: "null", "expected an object, got NoneType"),
    ("result.json", lambda _: "[" * 100_000, "unreadable result.json"),
    ("result.json", lambda _: '{"scores": [1]}', "The scores cannot be shown"),
    ("result.json", lambda _: '{"conflicts": 3}', "The conflicts cannot be shown"),
    ("result.json", lambda _: '{"measures": [[]]}', "The scores cannot be shown"),
    ("result.json", lambda _: '{"a": 1}', "The scores cannot be shown"),
    ("metrics.jsonl", lambda _: "", "No step is recorded yet."),
    (
        "metrics.jsonl",
        lambda text: text.replace('"step": 2', f'"step": {10**400}'),
        "The figures cannot be shown",
    ),
    (
        "config.json",
        lambda text: json.dumps(json.loads(text) | {"resumed": [1]}),
        "The environment cannot be shown",
    ),
]


@pytest.mark.parametrize(("name", "change", "said"), FAULTY)
def test_what_can_be_shown_is_shown(run, tmp_path, name, change, said):
    path = copy(run, tmp_path / "a") / name
    path.write_text(change(path.read_text()))
    page = report([tmp_path / "a"], tmp_path)
    assert said in page.text
    assert "batch_size" in page.text


def test_no_name_in_any_file_is_markup(run, tmp_path):
    directory = copy(run, tmp_path / "a<b>&")
    config = json.loads((directory / "config.json").read_text())
    config["config"] |= {"task": MARKUP, "method": MARKUP, MARKUP: MARKUP}
    config |= {"versions": {MARKUP: MARKUP}, "device": MARKUP, MARKUP: MARKUP}
    (directory / "config.json").write_text(json.dumps(config))
    result = {
        "scores": {MARKUP: {MARKUP: 0.5}},
        "conflicts": {MARKUP: [MARKUP, [MARKUP], 0.5]},
        "measures": [{"name": MARKUP, "title": MARKUP}],
        "checkpoint": MARKUP,
        "step": MARKUP,
        "finished": True,
    }
    (directory / "result.json").write_text(json.dumps(result))
    metrics = directory / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("audio", MARKUP))
    page = report([directory, copy(run, tmp_path / "other")], tmp_path)
    assert MARKUP in page.text  # as text, which a reader sees
    assert "<script" not in page.source


def test_a_comparison_with_a_faulty_file(tmp_path):
    compared(tmp_path / "x")
    (tmp_path / "x" / "step_times.json").write_text('{"uniform": "slow"}')
    page = report([tmp_path / "x"], tmp_path)
    assert "remove it, and it is measured anew" in page.text
    assert "single-task" in page.text


def test_a_circle_of_links_is_no_run(tmp_path, capsys):
    (tmp_path / "a").symlink_to("a")
    assert main(["report", str(tmp_path / "a")]) == 2
    assert "holds neither a run" in capsys.readouterr().err
