"""Own arrays: what is accepted, what is refused, and how they are split."""

import tracemalloc

import numpy as np
import pytest

from mmpareto_jax.cli import main
from mmpareto_jax.data.sources import check_prepared, plan_of, prepare

SPLITS = ("train", "validation", "test")


def examples(number=60, modalities=3, classes=3, seed=0):
    """Every value of an example is its row, so that mixtures are seen."""
    rng = np.random.default_rng(seed)
    row = np.arange(number)
    every = {
        "motion": np.broadcast_to(row[:, None, None], (number, 6, 3)).astype(float),
        "vitals": np.broadcast_to(row[:, None], (number, 4)).astype(np.float32),
        "image": rng.integers(256, size=(number, 8, 8, 1), dtype=np.uint8),
    }
    return {name: every[name] for name in list(every)[:modalities]} | {
        "label": row % classes
    }


def parts(**change):
    """As many arrays with a split; `change` is for the validation's."""
    found = {}
    for number, split in enumerate(SPLITS):
        arrays = examples(6 * (number + 1), seed=number)
        if split == "validation":
            arrays |= change
        found |= {f"{split}/{name}": x for name, x in arrays.items() if x is not None}
    return found


def as_file(path, arrays):
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def as_packed_file(path, arrays):
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def as_directory(path, arrays):
    for name, array in arrays.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(path / f"{name}.npy", array)
    return path


WAYS = (as_file, as_packed_file, as_directory)


def prepared(tmp_path, arrays, write=as_file, out="out", **options):
    raw = write(tmp_path / "raw", arrays)
    return prepare(plan_of("arrays", raw, **options), tmp_path / out)


@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("number", [5, 5000])
@pytest.mark.parametrize("modalities", [1, 3])
def test_rows_stay_together_in_a_random_split(tmp_path, write, number, modalities):
    given = examples(number, modalities)
    found = prepared(tmp_path, given, write)
    rows = {split: [int(x) for x in ids] for split, ids in found.ids.items()}
    assert sorted(row for x in rows.values() for row in x) == list(range(number))
    for split, arrays in found.arrays.items():
        assert set(arrays) == set(given)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, given[name][rows[split]])
    kinds = {name: x.dtype for name, x in found.arrays["test"].items()}
    assert kinds["label"] == np.int32
    assert kinds["motion"] == np.float32  # float64 was given
    assert kinds.get("image", np.uint8) == np.uint8
    assert check_prepared(tmp_path / "out") == []


def test_progress_is_that_of_examples(tmp_path):
    raw, seen = as_file(tmp_path / "raw", examples(60)), []
    prepare(
        plan_of("arrays", raw), tmp_path / "out", progress=lambda *x: seen.append(x)
    )
    assert seen == sorted(seen)
    assert seen[-1] == (60, 60, 0)


@pytest.mark.parametrize("separator", "/-")
@pytest.mark.parametrize("write", WAYS)
def test_given_splits(tmp_path, write, separator):
    given = parts()
    named = {key.replace("/", separator): x for key, x in given.items()}
    found = prepared(tmp_path, named | {"classes": np.array(["a", "b", "c"])}, write)
    assert found.classes == ("a", "b", "c")
    assert found.ids["validation"][:2] == ("validation/0", "validation/1")
    assert found.index["counts"]["test"] == {"a": 6, "b": 6, "c": 6}
    for split, arrays in found.arrays.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, given[f"{split}/{name}"])


def test_every_class_has_the_same_shares(tmp_path):
    given = examples(5000, 1)
    given["label"] = np.repeat([0, 1, 2], (4000, 900, 100))
    found = prepared(tmp_path, given, shares=(0.7, 0.2, 0.1), seed=1)
    counts = {s: list(x.values()) for s, x in found.index["counts"].items()}
    np.testing.assert_allclose(counts["train"], [2800, 630, 70], atol=1)
    np.testing.assert_allclose(counts["validation"], [800, 180, 20], atol=1)
    np.testing.assert_allclose(counts["test"], [400, 90, 10], atol=1)
    other = prepared(tmp_path, given, out="other", shares=(0.7, 0.2, 0.1), seed=2)
    assert other.ids["test"] != found.ids["test"]
    same = prepared(tmp_path, given, out="same", shares=(0.7, 0.2, 0.1), seed=1)
    assert same.index == found.index


@pytest.mark.parametrize("kind", [str, int])
def test_a_group_is_in_one_split(tmp_path, kind):
    """Twenty subjects, each with all classes, in shares of examples."""
    rng = np.random.default_rng(0)
    subject = rng.integers(20, size=600)
    given = examples(600, 1) | {"group": subject.astype(kind)}
    found = prepared(tmp_path, given)
    where = {s: {subject[int(x)] for x in ids} for s, ids in found.ids.items()}
    assert sum(map(len, where.values())) == len(set.union(*where.values())) == 20
    sizes = {split: len(ids) for split, ids in found.ids.items()}
    np.testing.assert_allclose(list(sizes.values()), [480, 60, 60], atol=35)


def test_rare_classes_are_trained_on(tmp_path):
    given = examples(100, 1)
    given["label"] = np.concatenate([np.zeros(95, int), [1, 2, 3, 4, 5]])
    for seed in range(10):
        found = prepared(tmp_path, given, out=f"out{seed}", seed=seed)
        assert min(found.index["counts"]["train"].values()) > 0
        sizes = [len(found.ids[split]) for split in SPLITS]
        np.testing.assert_allclose(sizes, [80, 10, 10], atol=1)


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_ids_may_be_integers(tmp_path, kind):
    number = np.random.default_rng(0).permutation(60).astype(kind)
    given = examples(60, 1) | {"id": number}
    found = prepared(tmp_path, given)
    assert sorted(sum(found.ids.values(), ())) == sorted(map(str, number))
    for split, arrays in found.arrays.items():
        rows = [int(np.flatnonzero(number == int(x))[0]) for x in found.ids[split]]
        np.testing.assert_array_equal(arrays["motion"], given["motion"][rows])


def test_ids_are_kept(tmp_path):
    given = examples(30, 1) | {"id": np.array([f"clip {i}" for i in range(30)])}
    found = prepared(tmp_path, given)
    for split, ids in found.ids.items():
        rows = [int(name.split()[1]) for name in ids]
        motion = found.arrays[split]["motion"]
        np.testing.assert_array_equal(motion[:, 0, 0], rows)


def test_other_values_are_other_data(tmp_path):
    prepared(tmp_path, examples())
    prepared(tmp_path, examples())
    changed = examples()
    changed["vitals"][7, 1] += 1
    with pytest.raises(ValueError, match="holds other prepared data"):
        prepared(tmp_path, changed)


def test_a_directory_need_not_fit_in_memory(tmp_path):
    """Tracemalloc sees what numpy allocates, and not what it maps."""
    number = 5000
    given = {"x": np.ones((number, 4096), np.float32), "label": np.arange(number) % 2}
    raw = as_directory(tmp_path / "raw", given)
    size = given["x"].nbytes
    del given
    tracemalloc.start()
    try:
        prepare(plan_of("arrays", raw), tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 80e6
    assert peak < size / 4


def nan_at(row, like="vitals", number=60):
    array = examples(number)[like].astype(np.float32)
    array[row, ..., 0] = np.nan
    return array


LABEL = np.arange(60) % 3
REFUSED = {
    "not finite": ({"vitals": nan_at(7)}, "vitals: row 7: not finite as float32 (1 "),
    "too large": ({"vitals": np.full((60, 2), 1e300)}, "vitals: row 0: not finite"),
    "short": ({"vitals": np.zeros((59, 2))}, "vitals: 59 rows, but 60 labels"),
    "flat": ({"vitals": np.zeros(60)}, "vitals: expected [N, F], [N, T, C]"),
    "empty": ({"vitals": np.zeros((60, 0))}, "vitals: expected [N, F], [N, T, C]"),
    "integers": (
        {"vitals": np.zeros((60, 2), int)},
        "vitals: expected floats or uint8",
    ),
    "complex": ({"vitals": np.zeros((60, 2), complex)}, "vitals: expected floats or"),
    "object": (
        {"vitals": np.array([{}] * 60)},
        "vitals: cannot be read: it holds Python obj",
    ),
    "no label": ({"label": None}, "label: is missing"),
    "label": ({"label": LABEL / 1.0}, "label: expected integers [N], got float64 [60]"),
    "label [N, 1]": ({"label": LABEL[:, None]}, "label: expected integers [N], got"),
    "no examples": ({"label": LABEL[:0]}, "label: is empty"),
    "negative": ({"label": np.where(LABEL == 2, -1, LABEL)}, "label: row 2: -1 is no"),
    "no class": (
        {"classes": np.array(["a", "b"])},
        "label: row 2: 2 is no class, there",
    ),
    "absent": ({"label": LABEL * 10**9}, "label: training has no example of class 1"),
    "unseen": (
        {"classes": np.array(list("abcd"))},
        "label: training has no example of class 3",
    ),
    "twice": ({"classes": np.array(list("aba"))}, "classes: row 2: 'a' is there twice"),
    "numbers": ({"classes": np.arange(3)}, "classes: expected strings [N], got int64"),
    "id": ({"id": np.array(["x"] * 60)}, "id: row 1: 'x' is there twice, first in id"),
    "ids": ({"id": np.array(["x"] * 3)}, "id: 3 rows, but 60 labels"),
    "float ids": (
        {"id": np.zeros(60)},
        "id: expected strings or integers [N], got float64",
    ),
    "equal numbers": ({"id": LABEL}, "id: row 3: '0' is there twice"),
    "group": ({"group": np.zeros(60)}, "group: expected strings or integers [N], got"),
    "one group": (
        {"group": np.zeros(60, int)},
        "label: nothing is left for validation",
    ),
    "joint": ({"joint": np.zeros((60, 2))}, "joint: no array of a split can have this"),
    "mask": ({"mask": np.zeros((60, 2))}, "mask: no array of a split can have this"),
    "path": ({"../x": np.zeros((60, 2))}, "'../x': expected NAME or train/NAME"),
    "other split": (
        {"val/x": np.zeros((60, 2))},
        "'val/x': expected NAME or train/NAME",
    ),
    "space": ({"my sensor": np.zeros((60, 2))}, "'my sensor': expected NAME or"),
    "mixed": ({"train/x": np.zeros((60, 2))}, "expected a split, as others have one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_one_sentence(case, tmp_path):
    change, message = REFUSED[case]
    given = {k: x for k, x in (examples() | change).items() if x is not None}
    with pytest.raises(ValueError, match=r"^arrays: ") as error:
        prepared(tmp_path, given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


REFUSED_PARTS = {
    "label": ({"label": None}, "validation/label: is missing"),
    "modality": ({"image": None}, "validation/image: is missing"),
    "shape": (
        {"vitals": np.zeros((12, 5))},
        "validation/vitals: examples are float32 [5], those of train/vitals float",
    ),
    "dtype": (
        {"image": np.zeros((12, 8, 8, 1))},
        "validation/image: examples are float",
    ),
    "more": ({"x": np.zeros((12, 1))}, "train/x: is missing"),
    "value": ({"motion": nan_at(3, "motion", 12)}, "validation/motion: row 3: not fin"),
    "class": ({"label": np.arange(12)}, "train/label: training has no example of cl"),
    "classes": (
        {"classes": np.array(["a"])},
        "validation/classes: no array of a split",
    ),
}


@pytest.mark.parametrize("case", REFUSED_PARTS)
def test_what_is_wrong_in_a_split(case, tmp_path):
    change, message = REFUSED_PARTS[case]
    with pytest.raises(ValueError, match=r"^arrays: ") as error:
        prepared(tmp_path, parts(**change))
    assert message in str(error.value)


def test_splits_that_share_something(tmp_path):
    given = parts()
    del given["test/label"]
    with pytest.raises(ValueError, match="test/label: is missing"):
        prepared(tmp_path, given)
    given = {key: x for key, x in given.items() if not key.startswith("test")}
    with pytest.raises(ValueError, match="the split 'test' has no arrays"):
        prepared(tmp_path, given)
    names = {
        f"{s}/id": np.array([f"{s}{i}" for i in range(6 * n)])
        for n, s in enumerate(SPLITS, 1)
    }
    names["test/id"][4] = "train1"
    with pytest.raises(
        ValueError, match="test/id: row 4: 'train1' is there twice, fir"
    ):
        prepared(tmp_path, parts() | names)
    groups = {f"{s}/group": np.full(6 * n, n) for n, s in enumerate(SPLITS, 1)}
    groups["validation/group"][2] = 1
    with pytest.raises(ValueError, match="validation/group: row 2: '1' is in train/gr"):
        prepared(tmp_path, parts() | groups)


def test_files_that_are_none(tmp_path):
    raw = tmp_path / "raw.npz"
    for content in (b"", b"PK\x03\x04 cut off"):
        raw.write_bytes(content)
        with pytest.raises(ValueError, match="expected an npz file or a directory"):
            plan_of("arrays", raw)
    with pytest.raises(ValueError, match="expected an npz file or a directory"):
        plan_of("arrays", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"raw: .* has no arrays"):
        plan_of("arrays", tmp_path)
    directory = as_directory(tmp_path / "raw", examples())
    for content in (b"", b"no array", (directory / "motion.npy").read_bytes()[:-1]):
        (directory / "motion.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"arrays: motion\.npy: cannot be read"):
            plan_of("arrays", directory)


@pytest.mark.parametrize(
    "shares", [(0.8, 0.2), (0.8, 0.1, 0.2), (1.0, 0.0, 0.0), (float("nan"), 0.1, 0.1)]
)
def test_shares_that_are_none(tmp_path, shares):
    with pytest.raises(ValueError, match="shares: expected three above 0"):
        prepared(tmp_path, examples(), shares=shares)


def test_raw_files_are_not_overwritten(tmp_path):
    named = {key.replace("/", "-"): x for key, x in parts().items()}
    raw = as_directory(tmp_path / "raw", named)
    before = {path: path.read_bytes() for path in raw.glob("*.npy")}
    with pytest.raises(ValueError, match="is not empty, and holds no"):
        prepare(plan_of("arrays", raw), raw)
    assert {path: path.read_bytes() for path in raw.glob("*.npy")} == before


def test_from_own_arrays_to_a_trained_model(tmp_path, capsys):
    raw, data = as_file(tmp_path / "raw", examples(60)), str(tmp_path / "data")
    shares = ("--shares", "0.6,0.2,0.2", "--seed", "3")
    assert main(["prepare", "arrays", "--raw", str(raw), "--out", data, *shares]) == 0
    out = capsys.readouterr().out
    assert "train: 36 examples" in out
    assert f"mmpareto train arrays --data {data}" in out
    plan = ("--steps", "4", "--batch-size", "8", "--width", "8")
    run = ["--workdir", str(tmp_path / "run"), *plan]
    assert main(["train", "arrays", "--data", data, *run]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("motion", "vitals", "image"))
    assert main(["check", data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        f"{split}: 12 examples: image uint8 [8, 8, 1], motion float32 [6, 3], "
        "vitals float32 [4], label int32 []"
        for split in SPLITS[1:]
    ]
