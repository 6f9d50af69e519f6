"""Tasks: from prepared data, and the ways to make AV-digits harder."""

from itertools import islice

import numpy as np
import pytest
from clips import write_video, write_wav
from flax import nnx

from mmpareto_jax.cli import main
from mmpareto_jax.data import train_batches
from mmpareto_jax.models import ResNet18
from mmpareto_jax.training import Config
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._tasks.registry import make_task

SMALL = ["--encoder", "cnn", "--width", "8", "--batch-size", "4", "--steps", "2"]


def test_prepare_and_train_colored_digits(tmp_path, capsys):
    """The two commands."""
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    assert main(["prepare", "colored-digits", "--out", data]) == 0
    out = capsys.readouterr().out
    assert "train: 1294 examples (0 " in out
    assert f"mmpareto train colored-digits --data {data}" in out
    train = ["train", "colored-digits", "--data", data, "--workdir", run]
    assert main([*train, *SMALL]) == 0
    out = capsys.readouterr().out
    assert "multimodal" in out
    assert "gray" in out
    config = Config(task="colored-digits", data=data)
    assert config.num_train == 1294
    assert config.steps_per_epoch == 1294 // 32
    assert Config(task="colored-digits", data=data, train_examples=64).num_train == 64


def test_prepare_and_train_crema_d(tmp_path, capsys):
    raw, data = tmp_path / "raw", str(tmp_path / "data")
    for actor in range(1001, 1013):
        name = f"{actor}_DFA_{('ANG', 'SAD')[actor % 2]}_XX"
        write_wav(raw / "AudioWAV" / f"{name}.wav")
        write_video(raw / "VideoFlash" / f"{name}.flv")
    write_wav(raw / "AudioWAV" / "odd.wav")
    prepare = ["prepare", "crema-d", "--raw", str(raw), "--out", data, "--size", "32"]
    assert main([*prepare, "--workers", "1"]) == 0
    assert "left out: 1; the reasons are in" in capsys.readouterr().out
    train = ["train", "crema-d", "--data", data, "--workdir", str(tmp_path / "run")]
    assert main([*train, *SMALL]) == 0
    assert "visual" in capsys.readouterr().out

    config = Config(task="crema-d", data=data, batch_size=4, encoder="cnn", width=8)
    task = make_task(config)
    default = make_task(Config(task="crema-d", data=data, batch_size=4)).make_model
    model = nnx.eval_shape(lambda: default(nnx.Rngs(0)))
    assert isinstance(model.audio_encoder, ResNet18)
    assert isinstance(model.visual_encoder, ResNet18)
    batches = train_batches(
        task.data["train"], batch_size=4, seed=0, transform=task.transform
    )
    batch = next(batches)
    # Training sees one drawn and cropped frame of each half, evaluation all candidates.
    assert batch["visual"].shape == (4, 2, 32, 32, 3)
    assert task.data["test"]["visual"].shape[1:] == (2, 3, 32, 32, 3)
    program = make_program(config, task)
    state, metrics = program.step(program.state, batch)
    assert np.isfinite(metrics["loss/joint"])
    found = program.evaluate(state, task.data["test"])
    middle = dict(task.data["test"])
    middle["visual"] = middle["visual"][:, :, [1, 1, 1]]
    assert found == program.evaluate(state, middle)
    other = dict(task.data["test"])
    other["visual"] = other["visual"][:, :, [0, 0, 0]]
    assert found != program.evaluate(state, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "crema-d", "--out", "x"], "crema-d needs the directory"),
        (["prepare", "crema-d", "--raw", "no", "--out", "x"], "no is no directory"),
        (
            ["prepare", "colored-digits", "--size", "9", "--out", "x"],
            "--size: colored-digits has no such option",
        ),
        (
            ["prepare", "colored-digits", "--workers", "0", "--out", "x"],
            "--workers: expected 1 to",
        ),
        (["train", "crema-d"], "data: expected the directory of prepared data"),
        (["train", "--data", "x"], "data: expected nothing for av-digits"),
        (["train", "crema-d", "--data", "no"], "no holds no prepared data"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_data_of_another_task(tmp_path):
    data = str(tmp_path / "data")
    main(["prepare", "colored-digits", "--out", data])
    with pytest.raises(ValueError, match="prepared data of crema-d, not"):
        Config(task="crema-d", data=data)


# --- AV-digits made harder


def arrays_of(**options):
    return make_task(Config(**options)).data


def test_three_modalities():
    plain, three = (
        arrays_of(train_examples=50),
        arrays_of(train_examples=50, modalities=3),
    )
    for split, found in three.items():
        assert set(found) == {"audio", "visual", "second", "label"}
        for name in plain[split]:
            np.testing.assert_array_equal(found[name], plain[split][name])
        assert found["second"].shape == found["visual"].shape
        assert np.any(found["second"] != found["visual"])
    titles = make_task(Config(train_examples=50, modalities=3)).titles
    assert list(titles) == ["joint", "audio", "visual", "second"]


def moved(arrays, plain):
    """Which rows have another image."""
    return np.any(arrays["visual"] != plain["visual"], axis=(1, 2, 3, 4))


def test_random_images_are_in_training_only():
    plain, noisy = arrays_of(), arrays_of(visual_label_noise=0.4)
    share = moved(noisy["train"], plain["train"]).mean()
    np.testing.assert_allclose(share, 0.4, atol=0.05)
    np.testing.assert_array_equal(noisy["train"]["label"], plain["train"]["label"])
    np.testing.assert_array_equal(noisy["train"]["audio"], plain["train"]["audio"])
    for split in ("validation", "test"):
        np.testing.assert_array_equal(noisy[split]["visual"], plain[split]["visual"])


def test_contradictions():
    plain, found = arrays_of(), arrays_of(contradiction=0.5)
    for split in plain:
        rows = moved(found[split], plain[split])
        np.testing.assert_allclose(rows.mean(), 0.5, atol=0.06)
        changed = found[split]["label"] != plain[split]["label"]
        # The label follows the image in half of them, and stays where nothing moved.
        assert not np.any(changed[~rows])
        np.testing.assert_allclose(changed[rows].mean(), 0.5, atol=0.1)
        np.testing.assert_array_equal(found[split]["audio"], plain[split]["audio"])


def test_a_run_with_three_modalities():
    config = Config(train_examples=32, batch_size=16, modalities=3, width=8)
    task = make_task(config)
    program = make_program(config, task)
    objectives = {x for x in program.groups.groups.values() if len(x) > 1}
    assert objectives == {("joint", k) for k in ("audio", "visual", "second")}
    batch = list(islice(train_batches(task.data["train"], batch_size=16, seed=0), 1))
    _, metrics = program.step(program.state, batch[0])
    assert np.isfinite(metrics["loss/second"])
