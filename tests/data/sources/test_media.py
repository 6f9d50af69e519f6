import numpy as np
import pytest
from clips import tone, truncate, write_video, write_wav
from scipy import signal

from mmpareto_jax.data.sources import UnusableError
from mmpareto_jax.data.sources._media import (
    fbank,
    log_stft,
    read_frames,
    read_sound,
    tiled,
)


def test_sound_is_resampled(tmp_path):
    write_wav(tmp_path / "a.wav", seconds=1.0, rate=16_000, hz=440)
    found = read_sound(tmp_path / "a.wav", 22_050)
    assert found.dtype == np.float32
    assert len(found) == 22_050
    expected = tone(1.0, rate=22_050, hz=440)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=2e-3)


def test_sound_that_was_cut_off(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path)
    truncate(path)
    with pytest.raises(UnusableError, match="cut off after"):
        read_sound(path, 16_000)


def test_sound_of_a_video(tmp_path):
    path = tmp_path / "a.mp4"
    sound = tone(1.0, rate=16_000, hz=440)
    write_video(path, sound=sound, sound_rate=16_000)
    found = read_sound(path, 16_000)
    peak = np.abs(np.fft.rfft(found[:16_000])).argmax()
    assert abs(peak - 440) <= 1


def test_frames_are_spread_over_the_parts(tmp_path):
    write_video(tmp_path / "a.avi", seconds=2.4, rate=10)
    frames = read_frames(tmp_path / "a.avi", parts=2, candidates=3, size=20)
    assert frames.shape == (2, 3, 20, 20, 3)
    red = frames[..., 0].mean(axis=(2, 3)).ravel()
    # Of 24 frames the 2nd, 6th, ...; frame k has red 255 k / 24.
    expected = [255 * k // 24 for k in (2, 6, 10, 14, 18, 22)]
    np.testing.assert_allclose(red, expected, atol=8)


def test_too_few_frames(tmp_path):
    write_video(tmp_path / "a.avi", seconds=0.2, rate=10)
    with pytest.raises(UnusableError, match="too short: 2 frames for 3 parts"):
        read_frames(tmp_path / "a.avi", parts=3, candidates=1, size=8)


def test_tiled():
    np.testing.assert_array_equal(tiled(np.arange(3), 7), [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(tiled(np.arange(3), 2), [0, 1])


def test_log_stft():
    """Against scipy's transform of the reflected signal."""
    x = np.random.default_rng(0).normal(size=3000)
    found = log_stft(x, 512, 353)
    assert found.shape == (257, 1 + 3000 // 353)
    transform = signal.ShortTimeFFT(signal.get_window("hann", 512), 353, fs=1.0)
    padded = np.pad(x, 256, mode="reflect")
    for frame in range(found.shape[1]):
        start = frame * 353
        piece = padded[start : start + 512] * transform.win
        expected = np.log(np.abs(np.fft.rfft(piece)) + 1e-7)
        np.testing.assert_allclose(found[:, frame], expected, rtol=1e-4, atol=1e-5)


def test_crema_d_has_188_frames():
    assert log_stft(np.zeros(3 * 22_050), 512, 353).shape == (257, 188)


def test_fbank_by_the_definition():
    """One frame, filter by filter, with loops."""
    rate, length = 16_000, 400
    x = np.random.default_rng(0).normal(size=length + 160).astype(np.float32)
    found = fbank(x, rate, num_mels=8)
    assert found.shape == (2, 8)
    frame = x[160:].astype(float)
    frame = frame - frame.mean()
    emphasised = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))
    power = np.abs(np.fft.rfft(emphasised * window, 512)) ** 2

    def mel(f):
        return 1127 * np.log(1 + f / 700)

    low, high = mel(20.0), mel(8000.0)
    width = (high - low) / 9
    for k in range(8):
        left, centre, right = (low + width * (k + i) for i in range(3))
        total = 0.0
        for i in range(256):
            m = mel(i * rate / 512)
            if left < m <= centre:
                total += power[i] * (m - left) / width
            elif centre < m < right:
                total += power[i] * (right - m) / width
        np.testing.assert_allclose(found[1, k], np.log(total), rtol=1e-4)


def test_sound_shorter_than_a_frame():
    with pytest.raises(UnusableError, match="too short: 100 samples"):
        fbank(np.zeros(100), 16_000)
