"""Every data set from small files in its original formats, end to end."""

import gzip

import numpy as np
import pytest
from clips import tone, truncate, write_idx, write_image, write_video, write_wav
from described import check_described
from written import reasons

from mmpareto_jax.data.sources import NAMES, plan_of, prepare

# --- CREMA-D: WAV and FLV

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")


def crema_d(root, actors=10, emotions=EMOTIONS[:2]):
    for actor in range(1001, 1001 + actors):
        for k, emotion in enumerate(emotions):
            name = f"{actor}_DFA_{emotion}_XX"
            write_wav(root / "AudioWAV" / f"{name}.wav", hz=300 + 100 * k)
            write_video(root / "VideoFlash" / f"{name}.flv", level=40 * k)
    return root


def test_crema_d(tmp_path):
    raw, out = crema_d(tmp_path / "raw"), tmp_path / "out"
    wav, flv = raw / "AudioWAV", raw / "VideoFlash"
    write_wav(wav / "1001_DFA_JOY_XX.wav")  # no such emotion
    (flv / "1002_DFA_ANG_XX.flv").unlink()
    (wav / "1003_DFA_ANG_XX.wav").write_bytes(b"RIFF")
    truncate(flv / "1004_DFA_ANG_XX.flv")
    write_wav(wav / "1005_DFA_ANG_XX.wav", seconds=0)
    for directory in (wav, flv):  # one id as published has a single letter there
        old = next(directory.glob("1006_DFA_DIS_XX.*"))
        old.rename(old.with_stem("1006_DFA_DIS_X"))
    found = prepare(plan_of("crema-d", raw, size=32), out, workers=2)
    check_described(found.dataset, found.arrays["train"])
    assert reasons(out).keys() == {
        "1001_DFA_JOY_XX",
        "1002_DFA_ANG_XX",
        "1003_DFA_ANG_XX",
        "1004_DFA_ANG_XX",
        "1005_DFA_ANG_XX",
    }
    assert reasons(out)["1002_DFA_ANG_XX"] == "no video of this id"
    assert reasons(out)["1005_DFA_ANG_XX"] == "no sound"
    assert sum(len(x) for x in found.ids.values()) == 20 - 4
    assert found.classes == EMOTIONS
    # Nobody is in two splits.
    actors = {s: {name[:4] for name in ids} for s, ids in found.ids.items()}
    assert set(actors) == {"train", "validation", "test"}
    assert sum(map(len, actors.values())) == len(set().union(*actors.values()))
    train = found.arrays["train"]
    assert train["audio"].shape[1:] == (257, 188, 1)
    assert train["audio"].dtype == np.float16
    assert train["visual"].shape[1:] == (2, 3, 32, 32, 3)
    for name, label, frames, sound in zip(
        found.ids["train"],
        train["label"],
        train["visual"],
        train["audio"],
        strict=True,
    ):
        assert label == EMOTIONS.index(name[9:12])
        # Frames are in order: red rises from frame to frame, green is the class's.
        red = frames[..., 0].reshape(6, -1).mean(axis=1)
        assert np.all(np.diff(red) > 10)
        np.testing.assert_allclose(frames[..., 1].mean(), 40 * label, atol=12)
        # 300 or 400 Hz at 22,050 Hz / 512 per bin.
        peak = sound[..., 0].astype(float).mean(axis=1).argmax()
        assert abs(peak - (300 + 100 * label) * 512 / 22_050) < 1


def test_crema_d_as_in_the_literature(tmp_path):
    raw, out = crema_d(tmp_path / "raw", actors=6), tmp_path / "out"
    names = sorted(p.stem for p in (raw / "AudioWAV").iterdir())
    lines = [f"{name},{name[9:12]}" for name in names]
    lines[0] = f"{names[0]},SAD"
    (raw / "train.csv").write_text("\n".join(lines[:9]) + "\n")
    (raw / "test.csv").write_text("\n".join(lines[9:11]) + "\n")
    plan = plan_of("crema-d", raw, split="literature", size=16, candidates=1)
    found = prepare(plan, out)
    assert found.ids["test"] == tuple(names[9:11])
    assert len(found.ids["validation"]) == 1
    assert {*found.ids["train"], *found.ids["validation"]} == set(names[1:9])
    assert reasons(out) == {
        names[0]: "labelled 'SAD' in train.csv, but its id says not"
    }
    (raw / "test.csv").unlink()
    with pytest.raises(ValueError, match=r"literature's split needs .*test\.csv"):
        plan_of("crema-d", raw, split="literature")


# --- Kinetics-Sounds: MP4 with both tracks


def test_kinetics_sounds(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for k, label in enumerate(("drumming", "singing")):
        for split, number in (("train", 8), ("test", 2)):
            for clip in range(number):
                path = raw / split / label / f"clip{clip}.mp4"
                sound = tone(2.0, rate=16_000, hz=400 * (k + 1))
                write_video(
                    path, seconds=2, level=90 * k, sound=sound, sound_rate=16_000
                )
    write_video(raw / "train" / "singing" / "mute.mp4", seconds=2)
    short = tone(0.5, rate=16_000)
    write_video(
        raw / "test" / "drumming" / "short.mp4",
        seconds=0.5,
        sound=short,
        sound_rate=16_000,
    )
    truncate(raw / "train" / "drumming" / "clip4.mp4")
    found = prepare(plan_of("kinetics-sounds", raw, size=24), out)
    check_described(found.dataset, found.arrays["train"])
    problems = reasons(out)
    assert problems["singing/mute"] == "no audio track"
    assert problems["drumming/short"].startswith("too short: 0.5")
    assert "drumming/clip4" in problems
    assert found.classes == ("drumming", "singing")
    assert len(found.ids["test"]) == 4
    assert len(found.ids["train"]) + len(found.ids["validation"]) == 15
    test = found.arrays["test"]
    assert test["audio"].shape == (4, 128, 1024, 1)
    assert test["visual"].shape == (4, 3, 2, 24, 24, 3)
    # Silence after two seconds is what zeros become.
    np.testing.assert_allclose(test["audio"][:, :, 300:], 4.503877 / 10.282552, 1e-3)
    peaks = test["audio"][:, :, 20:150, 0].astype(float).mean(axis=2).argmax(axis=1)
    assert peaks[0] < peaks[2]
    green = test["visual"][..., 1].reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(green, 90 * test["label"], atol=12)


# --- Coloured digits: IDX, or scikit-learn


def mnist(root, pack=False):
    rng = np.random.default_rng(0)
    for split, number in (("train", 60), ("t10k", 40)):
        images = rng.integers(100, 256, (number, 28, 28))
        arrays = {"images-idx3": images, "labels-idx1": np.arange(number) % 10}
        for kind, values in arrays.items():
            path = root / f"{split}-{kind}-ubyte"
            write_idx(path, values)
            if pack:
                path.with_name(path.name + ".gz").write_bytes(
                    gzip.compress(path.read_bytes())
                )
                path.unlink()
    return root


@pytest.mark.parametrize("pack", [False, True])
def test_colored_digits_of_mnist(tmp_path, pack):
    found = prepare(
        plan_of("colored-digits", mnist(tmp_path / "raw", pack)), tmp_path / "out"
    )
    sizes = {split: len(x["label"]) for split, x in found.arrays.items()}
    assert sizes == {"train": 54, "validation": 6, "test": 40}
    train = found.arrays["train"]
    assert train["gray"].shape == (54, 28, 28, 1)
    assert train["color"].shape == (54, 28, 28, 3)
    assert train["color"].dtype == np.uint8


def test_the_colour_tells_the_class_in_training_only(tmp_path):
    found = prepare(plan_of("colored-digits", None), tmp_path / "out")
    check_described(found.dataset, found.arrays["train"])

    def colors(split):
        arrays = found.arrays[split]
        gray = arrays["gray"].astype(float).sum(axis=(1, 2))
        return arrays["color"].astype(float).sum(axis=(1, 2)) / gray, arrays["label"]

    def accuracy(split):
        x, label = colors(split)
        centres = np.stack([train[train_label == c].mean(axis=0) for c in range(10)])
        nearest = ((x[:, None] - centres) ** 2).sum(axis=-1).argmin(axis=1)
        return (nearest == label).mean()

    train, train_label = colors("train")
    assert len(train) + len(colors("validation")[1]) + len(colors("test")[1]) == 1797
    assert accuracy("validation") > 0.6
    assert accuracy("test") < 0.2
    # The shape is in both.
    test = found.arrays["test"]
    for gray, color in zip(test["gray"][:20], test["color"][:20], strict=True):
        channel = color[..., color.sum(axis=(0, 1)).argmax()]
        assert np.corrcoef(gray.ravel(), channel.ravel())[0, 1] > 0.95


def test_idx_files_that_are_not(tmp_path):
    raw = mnist(tmp_path / "raw")
    labels = raw / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is cut off"):
        plan_of("colored-digits", raw)
    labels.write_bytes(b"\x00\x00\x0d\x01" + bytes(64))
    with pytest.raises(ValueError, match="no IDX file of bytes"):
        plan_of("colored-digits", raw)
    labels.unlink()
    with pytest.raises(ValueError, match=r"is missing \(also as \.gz\)"):
        plan_of("colored-digits", raw)


# --- ModelNet40: PNG


def test_modelnet40(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for k, label in enumerate(("chair", "table")):
        for split, number in (("train", 4), ("test", 2)):
            for item in range(number):
                for view in range(12):
                    name = f"{label}_{item:04}.obj.shaded_v{view + 1:03}.png"
                    write_image(
                        raw / label / split / name, value=20 + 15 * view + 20 * k
                    )
    (raw / "chair" / "train" / "chair_0001.obj.shaded_v012.png").unlink()
    bad = raw / "table" / "test" / "table_0000.obj.shaded_v007.png"
    bad.write_bytes(b"no png")
    found = prepare(plan_of("modelnet40", raw, size=16), out)
    check_described(found.dataset, found.arrays["train"])
    problems = reasons(out)
    assert problems["chair_0001"] == "11 views, not 12"
    assert problems["table_0000"].startswith("UnidentifiedImageError")
    test = found.arrays["test"]
    assert test["front"].shape == (3, 16, 16, 3)
    for front, rear, label in zip(
        test["front"], test["rear"], test["label"], strict=True
    ):
        np.testing.assert_allclose(front.mean(), 20 + 20 * label, atol=5)
        np.testing.assert_allclose(rear.mean(), 20 + 15 * 6 + 20 * label, atol=5)


# --- UCF-101: AVI and JPEG


def test_ucf101(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    lists = {"train": [], "test": []}
    for k, label in enumerate(("Archery", "Diving")):
        for group in range(1, 6):
            split = "test" if group == 5 else "train"
            clip = f"v_{label}_g{group:02}_c01"
            lists[split].append(f"{label}/{clip}.avi {k + 1}")
            write_video(raw / "videos" / label / f"{clip}.avi", level=90 * k)
            for axis, value in (("u", 60), ("v", 180)):
                for frame in range(6):
                    path = raw / "flow" / axis / clip / f"frame{frame:06}.jpg"
                    write_image(path, value=value + 8 * frame)
    lists["train"].append("Diving/v_Diving_g09_c01.avi 2")
    for split, lines in lists.items():
        (raw / f"{split}list01.txt").write_text("\n".join(lines) + "\n")
    clip = "v_Archery_g01_c01"
    for frame in range(2, 6):
        (raw / "flow" / "v" / clip / f"frame{frame:06}.jpg").unlink()
    truncate(raw / "videos" / "Archery" / "v_Archery_g02_c01.avi", 0.3)
    found = prepare(plan_of("ucf-101", raw, size=16), out)
    check_described(found.dataset, found.arrays["train"])
    problems = reasons(out)
    assert problems["v_Diving_g09_c01"] == "missing"
    assert problems[clip] == "too short: 2 flow images for 3 parts"
    assert "v_Archery_g02_c01" in problems
    test = found.arrays["test"]
    assert test["rgb"].shape == (2, 3, 1, 16, 16, 3)
    assert test["flow"].shape == (2, 3, 1, 16, 16, 2)
    for flow in test["flow"]:
        means = flow[:, 0].reshape(3, -1, 2).mean(axis=1)
        np.testing.assert_allclose(means[:, 0], [60 + 8 * i for i in (1, 3, 5)], atol=4)
        np.testing.assert_allclose(means[:, 1] - means[:, 0], 120, atol=6)
    (raw / "testlist01.txt").write_text("")
    with pytest.raises(ValueError, match=r"testlist01\.txt is missing or empty"):
        plan_of("ucf-101", raw)


# --- All of them


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_directory(name, tmp_path):
    with pytest.raises(ValueError, match=r"raw"):
        plan_of(name, tmp_path)


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match="name: expected one of"):
        plan_of("imagenet", tmp_path)
    with pytest.raises(ValueError, match=r"arrays needs the \.npz file, or"):
        plan_of("arrays", None)
    with pytest.raises(ValueError, match="crema-d needs the directory of its files"):
        plan_of("crema-d", None)
