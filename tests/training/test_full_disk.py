"""A full disk: one line that names the file and how to go on, and nothing is lost."""

import importlib.util
import pathlib
import re
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent


def _faults():
    """``tests/faults.py``, which is a script, too."""
    spec = importlib.util.spec_from_file_location("faults", HERE.parent / "faults.py")
    found = sys.modules["faults"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


faults = _faults()
# No file grows beyond so many bytes: that needs no privileges.
FILES = [
    ("train", 100, "out/config.json"),
    ("train", 3000, "out/checkpoints"),
    ("train", 12000, "out/figures/learning_curves.png"),
    ("prepare", 100, "out/"),
]
# KiB of a file system of its own.
DISKS = [
    ("train", 4, "out/config.json"),
    ("train", 8, "out/metrics.jsonl"),
    ("train", 12, "out/tensorboard"),
    ("train", 60, "out/checkpoints"),
    ("train", 148, "out/checkpoints"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, quick_processes):
    """(fault, command, bound) -> what came of it; a process for each command."""
    disks = DISKS if faults.can_mount() else []
    found = {}
    for fault, cases in (("files", FILES), ("disk", disks)):
        for command in dict.fromkeys(case[0] for case in cases):
            directory = tmp_path_factory.mktemp(f"{fault}-{command}")
            (directory / "raw").mkdir()
            np.savez(directory / "raw" / "arrays.npz", **arrays())
            bounds = [bound for name, bound, _ in cases if name == command]
            cache = str(tmp_path_factory.mktemp("cache"))
            others = {**quick_processes, "JAX_COMPILATION_CACHE_DIR": cache}
            for outcome in faults.under(fault, command, directory, bounds, **others):
                found[fault, command, outcome["bound"]] = outcome
    return found


def arrays():
    rng = np.random.default_rng(0)
    return {
        f"{split}/{name}": values
        for split, size in (("train", 60), ("validation", 24), ("test", 24))
        for name, values in {
            "image": rng.integers(255, size=(size, 16, 16, 1), dtype=np.uint8),
            "motion": rng.normal(size=(size, 6, 3)).astype(np.float32),
            "label": np.arange(size) % 3,
        }.items()
    }


CASES = [
    *[("files", *case) for case in FILES],
    *[("disk", *case) for case in DISKS],
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "command", "bound", "where"), CASES)
def test_a_full_disk(outcomes, fault, command, bound, where):
    if fault == "disk" and not faults.can_mount():
        pytest.skip("no file system of its own for this user")
    outcome = outcomes[fault, command, bound]
    assert outcome["code"] == 2
    *before, last = outcome["said"]
    what = {"disk": "No space left on device", "files": "File too large"}[fault]
    told = rf"mmpareto: {what}: \S*{where}\S*; free some space; to go on: (.*)"
    found = re.fullmatch(told, last)
    assert found, last
    # One line beside the progress: nothing of threads, no traceback.
    assert not [x for x in before if "Traceback" in x or "Error" in x or "rror:" in x]
    begun = "out/config.json" in outcome["left"]
    way_on = "mmpareto train --workdir" if begun else "the same command"
    if "figures" in where:
        way_on = "mmpareto plot"
    assert found[1].startswith(way_on)
    # And so it does, to the same end.
    assert outcome["again"] == 0, outcome["then"]
    assert outcome.get("same", True)
