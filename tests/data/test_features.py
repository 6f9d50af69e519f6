import math

import numpy as np
import pytest

from mmpareto_jax.data import (
    hz_to_mel,
    log_mel,
    mel_filterbank,
    power_spectrogram,
    standardise,
)

RATE = 8000


def test_mel_scale_matches_the_htk_table():
    # f = 700 (10 - 1) is one decade of 1 + f / 700.
    assert hz_to_mel(0.0) == 0.0
    assert hz_to_mel(6300.0) == pytest.approx(2595.0)
    assert hz_to_mel(1000.0) == pytest.approx(999.9855, abs=1e-3)


def test_filters_are_triangles_of_unit_peak_that_sum_to_one_inside():
    # Neighbouring triangles share edges, so between the first and the last centre
    # their sum is 1 at every frequency.
    bank = mel_filterbank(sample_rate=RATE, fft_size=4096, num_mels=12, low_hz=100.0)
    low, high = hz_to_mel(100.0), hz_to_mel(RATE / 2)
    mels = np.linspace(low, high, 14)[[1, -2]]
    first, last = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    frequencies = np.arange(2049) * RATE / 4096
    inside = (frequencies >= first) & (frequencies <= last)
    np.testing.assert_allclose(bank[inside].sum(axis=1), 1.0, atol=1e-5)
    assert (bank >= 0.0).all()
    assert (bank[frequencies < 100.0] == 0.0).all()
    assert (bank.max(axis=0) > 0.97).all()


@pytest.mark.parametrize("edges", [(-1.0, 100.0), (200.0, 100.0), (0.0, 4001.0)])
def test_filterbank_names_bad_edges(edges):
    with pytest.raises(ValueError, match="mel_filterbank: low_hz, high_hz: expected"):
        mel_filterbank(
            sample_rate=RATE, fft_size=64, num_mels=2, low_hz=edges[0], high_hz=edges[1]
        )


def test_filterbank_refuses_empty_filters():
    with pytest.raises(ValueError, match=r"num_mels: expected few enough .* got 40"):
        mel_filterbank(sample_rate=RATE, fft_size=64, num_mels=40)


def test_power_spectrogram_equals_an_explicit_transform():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 12))
    window_size, hop, size = 6, 4, 8
    got = power_spectrogram(x, window_size=window_size, hop=hop, fft_size=size)
    padded = np.pad(x, ((0, 0), (1, 1)))
    want = np.zeros((2, 3, 5))
    for n in range(2):
        for t in range(3):
            for k in range(5):
                total = 0j
                for m in range(window_size):
                    window = 0.5 - 0.5 * math.cos(2 * math.pi * m / window_size)
                    phase = -2 * math.pi * k * m / size
                    sample = window * padded[n, t * hop + m]
                    total += sample * complex(math.cos(phase), math.sin(phase))
                want[n, t, k] = abs(total) ** 2
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_power_spectrogram_obeys_parseval():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 64))
    power = power_spectrogram(x, window_size=64, hop=64, fft_size=64)[0, 0]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)
    # All but the frequencies 0 and Nyquist stand for a conjugate pair.
    both_sides = 2.0 * power.sum() - power[0] - power[-1]
    assert both_sides / 64 == pytest.approx(((x[0] * window) ** 2).sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((8,), (4, 2, 4)), ((1, 8), (4, 3, 4)), ((1, 8), (8, 4, 4)), ((1, 8), (4, 0, 4))],
)
def test_power_spectrogram_names_what_does_not_fit(shape, sizes):
    window_size, hop, fft_size = sizes
    with pytest.raises(ValueError, match=r"power_spectrogram: .*expected"):
        power_spectrogram(
            np.zeros(shape), window_size=window_size, hop=hop, fft_size=fft_size
        )


@pytest.mark.parametrize("mel", [3, 10, 20, 30])
def test_a_pure_tone_peaks_in_its_mel_bin(mel):
    edges = np.linspace(hz_to_mel(60.0), hz_to_mel(4000.0), 34)
    frequency = 700.0 * (10.0 ** (edges[mel + 1] / 2595.0) - 1.0)
    tone = np.sin(2 * np.pi * frequency * np.arange(5120) / RATE)[None]
    spectrogram = log_mel(tone)
    assert spectrogram.shape == (1, 32, 32)
    assert spectrogram.dtype == np.float32
    assert (spectrogram[0].argmax(axis=0) == mel).all()


def test_log_mel_grows_by_twice_the_log_of_the_amplitude():
    noise = np.random.default_rng(2).standard_normal((1, 5120))
    rise = log_mel(10.0 * noise, floor=0.0) - log_mel(noise, floor=0.0)
    np.testing.assert_allclose(rise, 2.0 * math.log(10.0), rtol=1e-4)


def test_silence_is_the_log_of_the_floor():
    silence = log_mel(np.zeros((1, 640)), floor=0.01)
    np.testing.assert_allclose(silence, math.log(0.01), rtol=1e-6)


def test_chunks_do_not_show():
    noise = np.random.default_rng(3).standard_normal((259, 320)).astype(np.float32)
    whole = log_mel(noise)
    assert whole.shape == (259, 32, 2)
    for row in (0, 255, 256, 258):
        np.testing.assert_allclose(whole[row], log_mel(noise[row : row + 1])[0], 1e-4)
    assert log_mel(noise[:0]).shape == (0, 32, 2)


def test_standardise_is_per_example_and_ignores_scale():
    x = np.random.default_rng(4).standard_normal((3, 5, 7)).astype(np.float32)
    y = standardise(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean(axis=(1, 2)), 0.0, atol=1e-6)
    np.testing.assert_allclose(y.std(axis=(1, 2)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(standardise(3.0 * x + 2.0), y, atol=1e-5)
    assert not standardise(np.ones((2, 4), np.float32)).any()
