"""Every module may be the first one imported, as by a spawned worker or by pickle."""

import json
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import mmpareto_jax as mmp

ROOT = pathlib.Path(mmp.__file__).parents[1]
LAZY = ("mmpareto_jax", "mmpareto_jax.training")

# What is first in one process is no longer so in the next: ours are forgotten before
# each import. What is from outside stays, or this would take minutes; and some of it
# cannot be imported by several threads.
IMPORTS = """
import importlib, json, sys, threading

def forget():
    for own in [m for m in sys.modules if m.split(".")[0] == "mmpareto_jax"]:
        del sys.modules[own]

names, together = json.loads(sys.argv[1])
failed, loaded, clashed = {}, {}, {}
for name in names:
    forget()
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)
    loaded[name] = [m for m in sys.modules if m.startswith("mmpareto_jax")]

def first(name):
    start.wait()
    try:
        importlib.import_module(name)
        importlib.import_module("mmpareto_jax.training").Result
    except Exception as error:
        clashed[name] = repr(error)

forget()
start = threading.Barrier(len(together))
threads = [threading.Thread(target=first, args=(name,)) for name in together]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

import mmpareto_jax, mmpareto_jax.training as training
result = training.Result
for package in (mmpareto_jax, training):
    importlib.reload(package)
mmpareto_jax.gramian, training.baselines
again = training.Result is result and {"Config", "train"} < set(dir(training))
print(json.dumps([failed, loaded, clashed, again]))
"""


def python(code, *arguments):
    """What `code` prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found():
    """What fails, what of ours each import loads, what clashes; loading again."""
    found = pkgutil.walk_packages(mmp.__path__, "mmpareto_jax.")
    names = ["mmpareto_jax", *(module.name for module in found)]
    # These packages import nothing. Where one imports its modules, they wait for each
    # other: Python gives up there, whatever the package.
    together = [n for n in names if n.startswith("mmpareto_jax.training._")]
    return json.loads(python(IMPORTS, json.dumps([names, together])))


def test_every_module_imports_first(found):
    failed, loaded, *_ = found
    assert len(loaded) > 150
    assert failed == {}


@pytest.mark.parametrize("package", LAZY)
def test_no_module_needs_the_list_that_needs_it(found, package):
    """It would be imported again, half loaded, where it is the first one."""
    _, loaded, *_ = found
    names = f"{package}._public"
    needed = set(loaded[names]) - {names}
    assert len(needed) > 20
    assert [name for name in needed if names in loaded[name]] == []


@pytest.mark.parametrize(
    "module",
    [
        "mmpareto_jax.training._study.run_once",  # a worker's
        "mmpareto_jax.training.baselines",
        "mmpareto_jax.weightings",
        "mmpareto_jax.problems",
    ],
)
def test_in_a_fresh_interpreter(module):
    python(f"import {module}")


def test_modules_may_be_first_in_several_threads(found):
    _, _, clashed, _ = found
    assert clashed == {}


def test_packages_may_be_loaded_again(found):
    assert found[-1] is True
