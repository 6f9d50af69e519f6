"""Prepared data that are broken: every fault is named, by opening and by check."""

import json
import os
import struct

import numpy as np
import pytest

from mmpareto_jax.cli import main
from mmpareto_jax.data.sources import check_prepared, open_prepared, plan_of, prepare


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    given = {"x": rng.normal(size=(60, 4)), "label": np.arange(60) % 3}
    np.savez(tmp_path / "raw.npz", **given)
    prepare(plan_of("arrays", tmp_path / "raw.npz"), tmp_path / "data")
    return tmp_path / "data"


def edit(change):
    """The index, after a function has changed it."""

    def apply(data):
        index = json.loads((data / "index.json").read_text())
        change(index)
        (data / "index.json").write_text(json.dumps(index))

    return apply


def text(content):
    return lambda data: (data / "index.json").write_bytes(content)


def put(path, array):
    return lambda data: np.save(data / path, array)


def cut(path, size):
    return lambda data: (data / path).write_bytes((data / path).read_bytes()[:size])


def without(key):
    return edit(lambda index: index.pop(key))


def value(key, content):
    return edit(lambda index: index.update({key: content}))


def path_name(name):
    return edit(lambda index: index["arrays"]["test"].append(name))


def linked(name, target):
    return lambda data: ((data / name).unlink(), (data / name).symlink_to(target))


def pipe(name):
    return lambda data: ((data / name).unlink(), os.mkfifo(data / name))


def head(shape, name="test-x.npy", descr="<f4"):
    """A file that is nothing but a head."""
    said = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    line = said.encode().ljust(117) + b"\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line))
    return lambda data: (data / name).write_bytes(start + line)


LABEL = np.arange(6, dtype=np.int32) % 3
SPLIT = "is no split: expected train, validation, test"
# A change -> what opening says; none of them takes reading whole arrays.
SEEN = {
    "no index": (lambda data: (data / "index.json").unlink(), "holds no prepared data"),
    "no json": (text(b"{"), "index.json cannot be read"),
    "no text": (text(b"\xff\xfe\x00"), "index.json cannot be read"),
    "deep": (text(b"[" * 100_000), "index.json cannot be read"),
    "directory": (
        lambda data: ((data / "index.json").unlink(), (data / "index.json").mkdir()),
        "index.json cannot be read",
    ),
    "{}": (text(b"{}"), "index.json: 'dataset' is missing"),
    "[]": (text(b"[]"), "index.json: expected names with values, got a list"),
    "null": (text(b"null"), "index.json: expected names with values, got a NoneType"),
    "ids": (without("ids"), "index.json: 'ids' is missing"),
    "no classes": (without("classes"), "index.json: 'classes' is missing"),
    "classes": (
        value("classes", ["0", "1", "0"]),
        "'classes': expected a list of diff",
    ),
    "counts": (
        value("counts", {"train": {"0": "many"}}),
        "'counts': expected for each",
    ),
    "arrays": (value("arrays", ["x"]), "'arrays': expected a list of names for each"),
    "../x": (value("arrays", {"../x": ["y"]}), f"arrays: '../x' {SPLIT}"),
    "/tmp/x": (value("arrays", {"/tmp/x": ["y"]}), f"arrays: '/tmp/x' {SPLIT}"),
    "dev": (edit(lambda i: i["arrays"].update(dev=["x"])), f"arrays: 'dev' {SPLIT}"),
    "no test": (edit(lambda i: i["ids"].pop("test")), "ids: split 'test' is missing"),
    "name": (path_name("/../../x"), "arrays: test: '/../../x' is no plain name"),
    "absolute": (path_name("/etc/x"), "arrays: test: '/etc/x' is no plain name"),
    "mask": (path_name("mask"), "arrays: test: 'mask' is a reserved name"),
    "joint": (path_name("joint"), "arrays: test: 'joint' is a reserved name"),
    "name twice": (path_name("x"), "arrays: test: 'x' is there 2 times"),
    "name more": (path_name("y"), "test-y.npy is missing"),
    "missing": (lambda data: (data / "test-x.npy").unlink(), "test-x.npy is missing"),
    "truncated": (cut("test-x.npy", -1), "test-x.npy cannot be read"),
    "head": (cut("test-x.npy", 40), "test-x.npy cannot be read"),
    "nothing": (cut("test-x.npy", 0), "test-x.npy cannot be read"),
    "garbage": (
        lambda data: (data / "test-x.npy").write_bytes(b"x" * 500),
        "test-x.npy",
    ),
    "objects": (put("test-x.npy", np.array([{}] * 6)), "test-x.npy cannot be read"),
    "strings": (
        put("test-x.npy", np.array(["a"] * 6)),
        "test-x.npy: expected [N, ...]",
    ),
    "scalar": (
        put("test-x.npy", np.array(1.0)),
        "test-x.npy: expected [N, ...] of num",
    ),
    "rows": (put("test-x.npy", np.ones((5, 4), np.float32)), "5 rows, but 6 ids"),
    "shape": (
        put("test-x.npy", np.ones((6, 3), np.float32)),
        "test-x.npy: float32 [3], but train-x.npy: float32 [4]",
    ),
    "dtype": (
        put("test-x.npy", np.ones((6, 4))),
        "test-x.npy: float64 [4], but train-x",
    ),
    "label": (
        put("test-label.npy", LABEL + 75),
        "test-label.npy: label 75 in row 0, but",
    ),
    "negative": (
        put("test-label.npy", np.where(LABEL == 2, -5, LABEL)),
        "test-label.npy: label -5 in row 2, but there are 3 classes",
    ),
    "float": (
        put("test-label.npy", LABEL / 1),
        "test-label.npy: expected integers [N]",
    ),
    "2-D": (put("test-label.npy", LABEL[:, None]), "test-label.npy: expected integers"),
    "fewer": (put("test-label.npy", LABEL[:5]), "test-label.npy: 5 rows, but 6 ids"),
    "few classes": (
        value("classes", ["a", "b"]),
        "label 2 in row 2, but there are 2 cl",
    ),
    "big endian": (
        put("test-x.npy", np.ones((6, 4), ">f4")),
        "test-x.npy: expected [N, ...] of numbers, got >f4 [6, 4]",
    ),
    "long double": (
        put("test-x.npy", np.ones((6, 4), np.longdouble)),
        "test-x.npy: expected [N, ...] of numbers, got float128",
    ),
    "complex": (
        put("test-x.npy", np.ones((6, 4)) * 1j),
        "expected [N, ...] of numbers",
    ),
    "1e12 rows": (head("(1000000000000, 4)"), "test-x.npy cannot be read: cut off"),
    "negative rows": (head("(-6, 4)"), "its head tells of a negative size: [-6, 4]"),
    "huge rows": (head(f"({10**40}, 4)"), "test-x.npy cannot be read: cut off"),
    "a call": (head("__import__('os').getcwd()"), "its head is no npy head"),
    "a huge row": (
        lambda data: (
            head("(6, 1000000000)")(data),
            os.truncate(data / "test-x.npy", 2**40),
        ),
        "test-x.npy: 4000000000 bytes a row, the limit is 1073741824",
    ),
    "many labels": (
        lambda data: (
            head("(1000000,)", "test-label.npy", "<i4")(data),
            os.truncate(data / "test-label.npy", 2**22),
        ),
        "test-label.npy: 1000000 rows, but 6 ids",
    ),
    "link outside": (
        linked("test-x.npy", "/etc/hostname"),
        "test-x.npy lies outside of",
    ),
    "device": (linked("test-x.npy", "/dev/zero"), "test-x.npy lies outside of"),
    "circle": (linked("test-x.npy", "test-x.npy"), "test-x.npy Too many levels"),
    "pipe": (pipe("test-x.npy"), "test-x.npy is no plain file"),
    "index is a pipe": (pipe("index.json"), "cannot be read: is no plain file"),
    "index is a link": (
        linked("index.json", "/etc/hostname"),
        "index.json cannot be read: lies outside of",
    ),
    "index of 1 TB": (
        lambda data: os.truncate(data / "index.json", 2**40),
        "index.json cannot be read: 1099511627776 bytes, more than the limit of",
    ),
    "key twice": (
        text(b'{"dataset": "x", "dataset": "y"}'),
        "index.json cannot be read: 'dataset' is there twice",
    ),
    "split twice": (
        text(b'{"ids": {"train": [], "train": []}}'),
        "index.json cannot be read: 'train' is there twice",
    ),
    "NUL": (path_name("x\0y"), "arrays: test: 'x\\x00y' is no plain name"),
    "lines": (path_name("x\ny"), "arrays: test: 'x\\ny' is no plain name"),
    "huge name": (path_name("x" * 10**6), "xxx... is no plain name"),
    "huge number": (text(b'{"left_out": ' + b"9" * 5000 + b"}"), "cannot be read"),
    "many names": (
        edit(lambda i: i["arrays"]["test"].extend(f"/{k}" for k in range(5000))),
        "... and 4980 more of this kind",
    ),
    "many counts": (
        edit(lambda i: i["counts"]["test"].update({f"/{k}": 1 for k in range(5000)})),
        "... and 4980 more of this kind",
    ),
    "count": (
        edit(lambda index: index["counts"]["test"].update({"1": 10**9})),
        "index.json: counts: test: '1' 1000000000, but the examples have 2",
    ),
    "checksum": (edit(lambda i: i["sha256"].pop("test-x")), "'test-x' is missing"),
}


@pytest.mark.parametrize("case", SEEN)
def test_a_fault_is_seen_on_opening(case, data, capsys):
    change, message = SEEN[case]
    change(data)
    with pytest.raises(ValueError, match=r"^open_prepared: ") as error:
        open_prepared(data)
    assert "\n" not in str(error.value)
    found = check_prepared(data)
    assert any(message in fault for fault in found), found
    assert main(["check", str(data)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out == [f"{data}: {fault}" for fault in found]
    assert len(out) < 100
    assert all(len(line) < 500 for line in out)


def infinite(data):
    array = np.load(data / "test-x.npy")
    array[4, 1], array[2, 3] = np.inf, np.nan
    np.save(data / "test-x.npy", array)


def twice(index):
    index["ids"]["test"][0] = index["ids"]["train"][0]


DEEP = {
    "id": (edit(twice), "index.json: ids: '0' is there 2 times (train, test)"),
    "infinite": (infinite, "test-x.npy: 2 values are not finite, first in row 2"),
    "other": (
        put("test-x.npy", np.ones((6, 4), np.float32)),
        "test-x.npy: its sha256 is not that of index.json",
    ),
    "more bytes": (
        lambda data: (data / "test-x.npy").write_bytes(
            (data / "test-x.npy").read_bytes() + b"x"
        ),
        "test-x.npy: its sha256 is not that of index.json",
    ),
}


@pytest.mark.parametrize("case", DEEP)
def test_what_takes_reading_is_not_seen_on_opening(case, data):
    change, message = DEEP[case]
    change(data)
    open_prepared(data)
    assert message in check_prepared(data)
    quick = check_prepared(data, checksums=False)
    assert quick == ([message] if case in ("id", "infinite") else [])


def test_all_faults_are_named(data):
    for case in ("missing", "count", "negative", "no test"):
        SEEN[case][0](data)
    infinite_train = np.load(data / "train-x.npy") * np.inf
    np.save(data / "train-x.npy", infinite_train)
    found = check_prepared(data)
    expected = ("test-x.npy is missing", "label -5 in row 2", "split 'test' is missing")
    for part in (
        *expected,
        "train-x.npy: 192 values are not",
        "train-x.npy: its sha256",
    ):
        assert any(part in fault for fault in found), part
    with pytest.raises(ValueError, match=r"; and \d more: mmpareto check"):
        open_prepared(data)


def test_nothing_is_wrong(data, capsys):
    assert check_prepared(data) == []
    assert main(["check", str(data)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 48 examples: x float32 [4], label int32 []",
        "validation: 6 examples: x float32 [4], label int32 []",
        "test: 6 examples: x float32 [4], label int32 []",
    ]


@pytest.mark.parametrize("case", ["{}", "[]", "null", "no json"])
def test_training_refuses_a_broken_index(case, data, tmp_path, capsys):
    SEEN[case][0](data)
    run = ["--workdir", str(tmp_path / "run")]
    assert main(["train", "arrays", "--data", str(data), *run]) == 2
    assert "holds no prepared data" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_damaged_bytes_are_a_fault_and_no_traceback(data):
    """Of an array all of them; the index has some that nobody reads."""
    rng = np.random.default_rng(0)
    files = sorted(data.glob("*.npy"))
    whole = {path: path.read_bytes() for path in (*files, data / "index.json")}
    for number in range(300):
        path = list(whole)[number % len(whole)]
        damaged = bytearray(whole[path])
        for at in rng.integers(min(len(damaged), 300), size=3):
            damaged[at] ^= int(rng.integers(1, 256))
        if number % 5 == 0:
            damaged = damaged[: rng.integers(len(damaged))]
        path.write_bytes(damaged)
        found = check_prepared(data)
        assert found or path.suffix == ".json"
        assert not any("\n" in fault for fault in found)
        path.write_bytes(whole[path])
    assert check_prepared(data) == []


def test_the_order_of_an_arrays_bytes_does_not_matter(data):
    array = np.load(data / "test-x.npy")
    np.save(data / "test-x.npy", np.asfortranarray(array))
    np.testing.assert_array_equal(open_prepared(data).arrays["test"]["x"], array)


def test_names_of_any_language(tmp_path):
    names = np.array(["łąka", "森", "λ"])
    given = {"x": np.ones((60, 4)), "label": np.arange(60) % 3, "classes": names}
    np.savez(tmp_path / "raw.npz", **given)
    prepare(plan_of("arrays", tmp_path / "raw.npz"), tmp_path / "data")
    assert open_prepared(tmp_path / "data").classes == tuple(names)
