"""Nothing that is read can run: no pickles, no text as a program, no objects."""

import ast
import pathlib

import pytest

import mmpareto_jax as mmp

PACKAGE = pathlib.Path(mmp.__file__).parent
MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MODULES |= {"torch", "yaml"}
ARRAYS = {"np.load", "numpy.load", "np.savez", "np.savez_compressed"}
CALLS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"system", "popen"}


def name_of(node):
    """Such as "np.load", of a call."""
    return ast.unparse(node.func)


def faults(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from (x for x in names if x.split(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        called = name_of(node)
        given = {x.arg: ast.unparse(x.value) for x in node.keywords}
        if called in CALLS or called.split(".")[-1] in SHELLS:
            yield called
        if called in ARRAYS and given.get("allow_pickle") != "False":
            yield f"{called} without allow_pickle=False"
        if called.endswith((".read_array", ".open_memmap")):
            yield called
        if given.get("shell") not in (None, "False"):
            yield f"{called} with a shell"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch",
        "eval(x)",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
        "os.system(x)",
    ],
)
def test_a_fault_is_seen(source):
    assert list(faults(ast.parse(source)))


def test_the_package_has_none():
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 200
    found = [
        f"{path.relative_to(PACKAGE)}: {fault}"
        for path in paths
        for fault in faults(ast.parse(path.read_text()))
    ]
    assert found == []
