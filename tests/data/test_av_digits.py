import hashlib
import json
from importlib import resources

import numpy as np
import pytest
import soundfile

from mmpareto_jax.data import load_av_clips, load_av_digits
from mmpareto_jax.data import render_av_digits as rendering

SPLITS = ("train", "validation", "test")
FOLDER = resources.files("mmpareto_jax.data") / "av_digits"


@pytest.fixture(scope="module")
def digits():
    return {split: load_av_digits(split) for split in SPLITS}


@pytest.fixture(scope="module")
def clips():
    return {split: load_av_clips(split) for split in SPLITS}


def disjoint(sets):
    return len(set().union(*sets)) == sum(map(len, sets))


def hashes(rows):
    return {
        hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest() for row in rows
    }


# The files in the package.


def test_the_data_fits_in_two_megabytes():
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert {path.name for path in files} == {
        "README.md",
        "index.json",
        *(f"{split}.ogg" for split in SPLITS),
    }
    assert sum(len(path.read_bytes()) for path in files) <= 2_000_000


def test_there_are_1500_clips_of_every_voice_and_digit(clips):
    assert sum(c.label.size for c in clips.values()) == 1500
    for split, c in clips.items():
        assert set(c.voice) == set(rendering.VOICES[split])
        for voice in rendering.VOICES[split]:
            spoken = np.bincount(c.label[c.voice == voice], minlength=10)
            assert (spoken == rendering.CLIPS_PER_DIGIT).all()


def test_voices_and_clips_are_disjoint(clips):
    assert disjoint([set(c.voice) for c in clips.values()])
    # 1,500 different sounds: not one is repeated, within a split or across.
    distinct = [hashes(c.waveform) for c in clips.values()]
    assert disjoint(distinct)
    assert [len(d) for d in distinct] == [900, 300, 300]


@pytest.mark.parametrize("split", SPLITS)
def test_the_stream_has_the_length_of_the_index_and_silence_in_its_gaps(split):
    index = json.loads((FOLDER / "index.json").read_text())
    assert tuple(index["columns"]) == rendering.COLUMNS
    rows = [dict(zip(index["columns"], r, strict=True)) for r in index["clips"][split]]
    with (FOLDER / f"{split}.ogg").open("rb") as file:
        stream, rate = soundfile.read(file)
    assert rate == index["sample_rate"] == 8000
    position = 0
    for row in rows:
        assert row["start"] == position
        end = position + row["length"]
        clip = stream[position:end]
        # The middle of the gap, and the clip's own ends: an offset of 5 ms would show.
        gap = stream[end + 40 : end + rendering.GAP - 40]
        assert np.abs(gap).max() < 0.1 * np.abs(clip).max()
        assert 0.5 < np.abs(clip).max() < 1.1
        position = end + rendering.GAP
    assert position == stream.size


def test_the_codec_keeps_every_sample_in_its_place(tmp_path):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1000, 5000, size=40)
    chirps = [
        0.5 * np.sin(np.cumsum(np.linspace(0.1, rng.uniform(0.5, 2.0), size)))
        for size in sizes
    ]
    stream, starts = rendering.join(chirps)
    rendering.write_stream(tmp_path / "a.ogg", stream)
    decoded, _ = soundfile.read(tmp_path / "a.ogg", dtype="float32")
    assert decoded.size == stream.size
    padded = np.pad(decoded, 8)
    for chirp, start in zip(chirps, starts, strict=True):
        lags = [padded[8 + start + lag :][: chirp.size] @ chirp for lag in range(-8, 9)]
        assert np.argmax(lags) == 8


def test_resampling_keeps_a_tone_below_the_new_nyquist_frequency():
    seconds = 0.1
    old = np.sin(2 * np.pi * 1000.0 * np.arange(int(22050 * seconds)) / 22050)
    new = rendering.resample(old, 22050, 8000)
    want = np.sin(2 * np.pi * 1000.0 * np.arange(800) / 8000)
    np.testing.assert_allclose(new[50:-50], want[50:-50], atol=0.02)
    with pytest.raises(ValueError, match="resample: rate_out"):
        rendering.resample(old, 8000, 22050)


def test_trimming_bounds_the_length_and_refuses_silence():
    noise = np.random.default_rng(1).standard_normal(8000)
    trimmed = rendering.trim(noise, max_length=5120)
    assert trimmed.size == 5120
    assert np.abs(trimmed).max() == pytest.approx(0.8)
    assert trimmed[0] == trimmed[-1] == 0.0
    with pytest.raises(ValueError, match="trim: waveform: expected a sound"):
        rendering.trim(np.zeros(8000), max_length=5120)


# The examples.


def test_shapes_types_and_sizes(digits):
    for split, size in zip(SPLITS, (1000, 400, 400), strict=True):
        data = digits[split]
        assert data.audio.shape == (size, 32, 32, 1)
        assert data.visual.shape == (size, 1, 16, 16, 1)
        assert data.audio.dtype == data.visual.dtype == np.float32
        assert data.label.shape == (size,)
        assert data.label.dtype == np.int32
        assert (np.bincount(data.label) == size // 10).all()
        assert set(data.arrays) == {"audio", "visual", "label"}
        for array in (data.audio, data.visual):
            flat = array.reshape(size, -1)
            np.testing.assert_allclose(flat.mean(axis=1), 0.0, atol=1e-4)
            np.testing.assert_allclose(flat.std(axis=1), 1.0, atol=1e-4)


def test_splits_share_no_voice_clip_or_image(digits):
    every = digits.values()
    assert disjoint([set(d.voice) for d in every])
    assert disjoint([set(d.image_index) for d in every])
    assert disjoint([hashes(d.clean_visual) for d in every])
    assert disjoint(
        [
            hashes(load_av_clips(split).waveform[data.clip_index])
            for split, data in digits.items()
        ]
    )


def test_splits_stay_disjoint_under_other_seeds_and_sizes(digits):
    other = load_av_digits("test", seed=7, num_examples=3000)
    assert disjoint([set(other.image_index), set(digits["train"].image_index)])
    assert disjoint([hashes(other.clean_visual), hashes(digits["train"].clean_visual)])


def test_both_halves_of_a_pair_show_the_label(digits, clips):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for split, data in digits.items():
        np.testing.assert_array_equal(clips[split].label[data.clip_index], data.label)
        np.testing.assert_array_equal(labels[data.image_index], data.label)
        np.testing.assert_array_equal(clips[split].voice[data.clip_index], data.voice)
        np.testing.assert_allclose(
            data.clean_visual.reshape(-1, 64) * 16.0, pixels[data.image_index]
        )


@pytest.mark.parametrize("size", [400, 4000])
def test_no_pair_occurs_twice(size):
    data = load_av_digits("validation", num_examples=size)
    pairs = set(zip(data.clip_index, data.image_index, strict=True))
    assert len(pairs) == size


def test_the_same_arguments_give_the_same_bits(digits):
    again = load_av_digits("validation")
    for name, array in digits["validation"].arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])


def test_a_smaller_load_is_a_prefix(digits):
    part = load_av_digits("validation", num_examples=37)
    np.testing.assert_array_equal(part.clip_index, digits["validation"].clip_index[:37])
    np.testing.assert_array_equal(part.visual, digits["validation"].visual[:37])
    np.testing.assert_allclose(part.audio, digits["validation"].audio[:37], atol=1e-5)


def test_seed_changes_pairs_and_noise():
    one = load_av_digits("test", num_examples=50, seed=0)
    two = load_av_digits("test", num_examples=50, seed=1)
    assert (one.clip_index != two.clip_index).any()
    assert (one.visual != two.visual).all(axis=(1, 2, 3, 4)).any()


def test_levels_touch_their_own_modality_only():
    base = load_av_digits("test", num_examples=20)
    quiet = load_av_digits("test", num_examples=20, audio_snr_db=np.inf)
    np.testing.assert_array_equal(base.visual, quiet.visual)
    assert (base.audio != quiet.audio).any()
    clean = load_av_digits("test", num_examples=20, visual_noise=0, visual_occlusion=0)
    np.testing.assert_array_equal(base.audio, clean.audio)
    assert (base.visual != clean.visual).any()


def test_no_degradation_leaves_the_image_alone():
    data = load_av_digits("test", num_examples=20, visual_noise=0, visual_occlusion=0)
    shown = data.visual[:, 0, ::2, ::2, 0]
    for image, clean in zip(shown, data.clean_visual, strict=True):
        assert np.corrcoef(image.ravel(), clean.ravel())[0, 1] == pytest.approx(1.0)
    covered = load_av_digits(
        "test", num_examples=20, visual_noise=0, visual_occlusion=8
    )
    assert not covered.visual.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, r"split: expected one of .* got 'tset'"),
        ({"num_examples": 0}, "num_examples: expected at least 1, got 0"),
        ({"num_examples": 10**6}, r"num_examples: expected at most \d+ .* got 1000000"),
        ({"audio_snr_db": float("nan")}, "audio_snr_db: expected .* got nan"),
        ({"audio_snr_db": -np.inf}, "audio_snr_db: expected .* got -inf"),
        ({"visual_noise": -0.1}, "visual_noise: expected .* got -0.1"),
        ({"visual_noise": float("nan")}, "visual_noise: expected .* got nan"),
        ({"visual_occlusion": 9}, "visual_occlusion: expected 0 to 8 pixels, got 9"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=f"load_av_digits: {message}"):
        load_av_digits(**{"split": "test"} | options)


def test_load_av_clips_names_a_bad_split():
    with pytest.raises(ValueError, match="load_av_clips: split: expected one of"):
        load_av_clips("dev")
