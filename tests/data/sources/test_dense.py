"""NYUv2 and Cityscapes, from generated files of the literature's layout."""

import numpy as np
import pytest
from described import check_described
from written import COUNTS, SIZE, arrays_of, left_out, nyuv2, write

from mmpareto_jax.data import load_scenes
from mmpareto_jax.data.sources import Example, Plan, plan_of, prepare


def test_nyuv2(tmp_path):
    raw, out = nyuv2(tmp_path / "raw"), tmp_path / "out"
    found = prepare(plan_of("nyuv2", raw), out, workers=2)
    check_described(found.dataset, found.arrays["train"])
    assert len(found.classes) == 13
    assert {k: len(v) for k, v in found.ids.items()} == {
        "train": 18,
        "validation": 2,
        "test": 7,
    }
    assert found.ids["test"] == tuple(f"val/{i}" for i in range(7))
    both = [*found.ids["train"], *found.ids["validation"]]
    assert sorted(both) == sorted(f"train/{i}" for i in range(20))
    # Numbers in their order, 2 before 10.
    order = [int(x.split("/")[1]) for x in found.ids["train"]]
    assert order == sorted(order)
    for split, arrays in found.arrays.items():
        assert set(arrays) == {"image", "segmentation", "depth", "normal"}
        types = [arrays[x].dtype for x in ("image", "segmentation", "depth", "normal")]
        assert types == [np.uint8, np.int8, np.float32, np.float32]
        for row, name in enumerate(found.ids[split]):
            part, number = name.split("/")
            want = arrays_of(part, int(number), 13)
            np.testing.assert_array_equal(
                arrays["image"][row], np.round(want["image"] * 255)
            )
            np.testing.assert_array_equal(arrays["segmentation"][row], want["label"])
            np.testing.assert_allclose(arrays["depth"][row], want["depth"], rtol=1e-6)
            normal = arrays["normal"][row]
            assert not normal[0, 0].any()
            length = np.linalg.norm(want["normal"], axis=-1, keepdims=True)
            np.testing.assert_allclose(normal * length, want["normal"], atol=1e-5)
    assert found.index["counts"] == {
        "train": {"examples": 18},
        "validation": {"examples": 2},
        "test": {"examples": 7},
    }
    assert not (out / "train-label.npy").exists()
    again = prepare(plan_of("nyuv2", raw), out)
    assert again.index == found.index


def test_the_validation_part_depends_on_the_seed_only(tmp_path):
    raw = nyuv2(tmp_path / "raw")
    held = [
        {e.id for e in plan_of("nyuv2", raw, seed=seed).examples if e.split == where}
        for seed, where in ((0, "validation"), (0, "validation"), (5, "validation"))
    ]
    assert held[0] == held[1] != held[2]


@pytest.mark.parametrize(
    ("classes", "folder"), [(7, "label_7"), (7, "label"), (19, "label_19")]
)
def test_cityscapes(tmp_path, classes, folder):
    folders = {"image": "image", folder: "label", "depth": "depth"}
    raw = write(tmp_path / "raw", folders, classes)
    found = prepare(plan_of("cityscapes", raw, classes=classes), tmp_path / "out")
    check_described(found.dataset, found.arrays["train"])
    assert len(found.classes) == classes
    test = found.arrays["test"]
    assert set(test) == {"image", "segmentation", "depth"}
    assert test["depth"].shape == (7, *SIZE, 1)
    for row in range(7):
        want = arrays_of("val", row, classes)["label"]
        np.testing.assert_array_equal(test["segmentation"][row], want)


def test_cityscapes_has_its_own_classes(tmp_path):
    raw = write(tmp_path / "raw", {"image": "image", "label_7": "label"}, 7)
    with pytest.raises(ValueError, match="classes: expected 7 or 19, got 8"):
        plan_of("cityscapes", raw, classes=8)
    for classes in (7, 19):  # there is no depth, and there are no labels of 19
        with pytest.raises(ValueError, match=rf"train/.* all of .*label_{classes}'\]"):
            plan_of("cityscapes", raw, classes=classes)


def spoil(path, change):
    np.save(path, change(np.load(path)))


def nan(x):
    x[1, 1] = np.nan
    return x


def test_what_cannot_be_used_is_named(tmp_path):
    raw, out = nyuv2(tmp_path / "raw"), tmp_path / "out"
    train = raw / "train"
    spoil(train / "image" / "1.npy", lambda x: x[:-1])
    spoil(train / "image" / "2.npy", lambda x: x * 255)
    spoil(train / "label" / "3.npy", lambda x: x[..., None])
    spoil(train / "label" / "4.npy", lambda x: x + 1.5)
    spoil(train / "label" / "5.npy", lambda x: x * 0 + 13)
    spoil(train / "depth" / "6.npy", nan)
    spoil(train / "depth" / "7.npy", lambda x: -x)
    spoil(train / "normal" / "8.npy", lambda x: x.transpose(2, 0, 1))
    (train / "normal" / "9.npy").unlink()
    (train / "image" / "10.npy").write_bytes(b"no array")
    (train / "image" / "11.npy").unlink()
    found = prepare(plan_of("nyuv2", raw), out)
    report = left_out(out)
    reasons = {name: x["reason"] for name, x in report.items()}
    expected = {
        1: "shape (5, 8, 3), not (6, 8, 3)",
        2: "values from 0 to 255, not 0 to 1",
        3: "shape (6, 8, 1), not (6, 8)",
        4: "values from 0.5 to 13.5, not whole numbers from -1 to 12",
        5: "values from 13 to 13, not whole numbers from -1 to 12",
        6: "not finite as float64",
        8: "shape (3, 6, 8), not (6, 8, 3)",
        9: "missing",
        11: "missing",
    }
    for number, reason in expected.items():
        found_reason = reasons.pop(f"train/{number}")
        if number == 2:
            assert found_reason.startswith("values from ")
        else:
            assert found_reason == reason
    assert reasons.pop("train/7").startswith("a depth of -")
    assert reasons.pop("train/10").startswith("ValueError: ")
    assert not reasons
    assert sum(map(len, found.ids.values())) == 27 - 11
    # The file at fault is named too.
    assert report["train/9"]["file"] == str(train / "normal" / "9.npy")
    assert report["train/7"]["file"] == str(train / "depth" / "7.npy")


def test_the_size_is_that_of_most_images(tmp_path):
    raw = nyuv2(tmp_path / "raw")
    for name in ("image", "label", "depth", "normal"):
        spoil(raw / "train" / name / "0.npy", lambda x: x[:, :-2])
    found = prepare(plan_of("nyuv2", raw), tmp_path / "out")
    assert found.arrays["train"]["image"].shape[1:] == (*SIZE, 3)
    assert found.index["left_out"] == 1


def test_images_of_bytes_pass_as_they_are(tmp_path):
    raw = nyuv2(tmp_path / "raw")
    for part, number in COUNTS.items():
        for i in range(number):
            spoil(
                raw / part / "image" / f"{i}.npy",
                lambda x: np.round(x * 255).astype(np.uint8),
            )
    found = prepare(plan_of("nyuv2", raw), tmp_path / "out")
    want = arrays_of("val", 3, 13)["image"]
    np.testing.assert_array_equal(
        found.arrays["test"]["image"][3], np.round(want * 255)
    )


def test_scenes_go_through_the_same_form(tmp_path):
    """What the package renders has the conventions of what it reads."""
    raw = tmp_path / "raw"
    names = {"label": "segmentation", "depth": "depth", "normal": "normal"}
    for part, split in (("train", "train"), ("val", "test")):
        arrays = load_scenes(split, num_examples=12, size=16).arrays
        low = arrays["image"].min()
        arrays["image"] = (arrays["image"] - low) / (arrays["image"].max() - low)
        for folder, name in ({"image": "image"} | names).items():
            (raw / part / folder).mkdir(parents=True)
            for i, x in enumerate(arrays[name]):
                np.save(raw / part / folder / f"{i}.npy", x)
    found = prepare(plan_of("nyuv2", raw), tmp_path / "out")
    assert found.index["left_out"] == 0
    want = load_scenes("test", num_examples=12, size=16).arrays
    for name in names.values():
        np.testing.assert_allclose(
            found.arrays["test"][name], want[name], rtol=1e-6, atol=1e-6
        )


def test_some_labels_and_some_none_are_refused(tmp_path):
    examples = [Example("a", "train", 0, ()), Example("b", "train", None, ())]
    plan = Plan("toy", ("x",), examples, lambda _: {}, {})
    with pytest.raises(ValueError, match="some examples have a label and some have no"):
        prepare(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
