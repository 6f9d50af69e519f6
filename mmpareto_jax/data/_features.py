"""Log-mel spectrograms in NumPy."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 256  # waveforms transformed at once: bounds the memory for the frames


def hz_to_mel(frequency: float) -> float:
    """Mel scale of HTK: ``2595 log10(1 + f / 700)``.

    Args:
      frequency: Hz.

    Returns:
      Mel.

    Example:
      >>> round(hz_to_mel(1000.0))
      1000
    """
    return 2595.0 * math.log10(1.0 + frequency / 700.0)


def mel_filterbank(
    *,
    sample_rate: int,
    fft_size: int,
    num_mels: int,
    low_hz: float = 60.0,
    high_hz: float | None = None,
) -> NDArray[np.float32]:
    r"""Triangular filters, equally spaced in mel, each with peak 1.

    With edges :math:`m_0 < \dots < m_{M+1}` equally spaced in mel and
    :math:`f_j` their frequencies, filter :math:`j` is

    .. math::
      H_j(f) = \max\!\left(0, \min\!\left(
        \frac{f - f_{j-1}}{f_j - f_{j-1}},
        \frac{f_{j+1} - f}{f_{j+1} - f_j}\right)\right), \quad j = 1, \dots, M.

    Args:
      sample_rate: Hz.
      fft_size: Samples per transform.
      num_mels: M, the number of filters.
      low_hz: Lower edge of the first filter.
      high_hz: Upper edge of the last filter; by default the Nyquist frequency.

    Returns:
      float32 ``[fft_size // 2 + 1, num_mels]``.

    Raises:
      ValueError: When the edges are not ``0 <= low < high <= sample_rate / 2``, or a
        filter is so narrow that no frequency of the transform falls in it.

    Example:
      >>> bank = mel_filterbank(sample_rate=8000, fft_size=512, num_mels=32)
      >>> bank.shape, bank.dtype
      ((257, 32), dtype('float32'))
    """
    high = sample_rate / 2 if high_hz is None else high_hz
    if not 0.0 <= low_hz < high <= sample_rate / 2:
        raise ValueError(
            "mel_filterbank: low_hz, high_hz: expected 0 <= low_hz < high_hz <= "
            f"{sample_rate / 2}, got {low_hz}, {high}"
        )
    mels = np.linspace(hz_to_mel(low_hz), hz_to_mel(high), num_mels + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)  # [M + 2]
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]  # [M]
    frequencies = np.arange(fft_size // 2 + 1)[:, None] * (sample_rate / fft_size)
    rising = (frequencies - lower) / (centre - lower)
    falling = (upper - frequencies) / (upper - centre)
    bank = np.maximum(0.0, np.minimum(rising, falling))
    if not bank.any(axis=0).all():
        raise ValueError(
            "mel_filterbank: num_mels: expected few enough filters for fft_size="
            f"{fft_size} that none is empty, got {num_mels}"
        )
    return bank.astype(np.float32)


def power_spectrogram(
    waveforms: NDArray[Any], *, window_size: int, hop: int, fft_size: int
) -> NDArray[np.float32]:
    r"""Short-time power spectra under a periodic Hann window.

    .. math::
      P_{t,k} = \left|\sum_{n=0}^{W-1} w_n \, x_{th + n - p}\,
        e^{-2\pi i k n / F}\right|^2, \quad
      w_n = \tfrac12 - \tfrac12 \cos\frac{2\pi n}{W},

    with window size :math:`W`, hop :math:`h`, transform size :math:`F \ge W`, and
    :math:`p = (W - h) / 2` zeros on either side, so that T / h frames come of T
    samples when h divides T.

    Args:
      waveforms: Real ``[N, T]``; computed in float32.
      window_size: W, in samples; ``W - h`` even.
      hop: h, in samples.
      fft_size: F.

    Returns:
      float32 ``[N, T // hop, fft_size // 2 + 1]``.

    Raises:
      ValueError: When ``waveforms`` is not 2-D or the sizes do not fit together.

    Example:
      >>> tone = np.ones((2, 640))
      >>> power_spectrogram(tone, window_size=320, hop=160, fft_size=512).shape
      (2, 4, 257)
    """
    if waveforms.ndim != 2:
        raise ValueError(
            "power_spectrogram: waveforms: expected shape [N, T], "
            f"got {waveforms.shape}"
        )
    if not 0 < hop <= window_size <= fft_size or (window_size - hop) % 2:
        raise ValueError(
            "power_spectrogram: expected 0 < hop <= window_size <= fft_size with "
            f"window_size - hop even, got hop={hop}, window_size={window_size}, "
            f"fft_size={fft_size}"
        )
    phase = 2.0 * np.pi * np.arange(window_size) / window_size
    window = (0.5 - 0.5 * np.cos(phase)).astype(np.float32)
    pad = (window_size - hop) // 2
    x = np.pad(waveforms.astype(np.float32), ((0, 0), (pad, pad)))
    frames = np.lib.stride_tricks.sliding_window_view(x, window_size, axis=1)
    spectra = np.fft.rfft(frames[:, ::hop] * window, n=fft_size, axis=-1)
    return np.asarray(spectra.real**2 + spectra.imag**2, dtype=np.float32)


def log_mel(
    waveforms: NDArray[Any],
    *,
    sample_rate: int = 8000,
    num_mels: int = 32,
    window_size: int = 320,
    hop: int = 160,
    fft_size: int = 512,
    floor: float = 1e-4,
) -> NDArray[np.float32]:
    r"""Log-mel spectrograms: ``log(floor + P H / F)``.

    :math:`P` is the `power_spectrogram`, :math:`H` the `mel_filterbank` and
    :math:`F` the transform size. Frequency is the first axis, as in an image with
    time from left to right.

    Args:
      waveforms: Real ``[N, T]``.
      sample_rate: Hz.
      num_mels: Filters.
      window_size: Samples of the Hann window (320 at 8 kHz: 40 ms).
      hop: Samples between frames (160 at 8 kHz: 20 ms).
      fft_size: Samples per transform.
      floor: Added power, so that silence is finite; relative to a waveform of RMS 1.

    Returns:
      float32 ``[N, num_mels, T // hop]``, in nepers of power.

    Raises:
      ValueError: As `power_spectrogram` and `mel_filterbank`.

    Example:
      >>> log_mel(np.zeros((3, 5120))).shape
      (3, 32, 32)
    """
    bank = mel_filterbank(sample_rate=sample_rate, fft_size=fft_size, num_mels=num_mels)
    bank /= fft_size
    parts = []
    for begin in range(0, max(len(waveforms), 1), _CHUNK):
        power = power_spectrogram(
            waveforms[begin : begin + _CHUNK],
            window_size=window_size,
            hop=hop,
            fft_size=fft_size,
        )
        parts.append(np.log(power @ bank + np.float32(floor)).transpose(0, 2, 1))
    return np.concatenate(parts)


def standardise(arrays: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift and scale each example to mean 0 and standard deviation 1.

    Per example, not per data set: nothing has to be estimated on a training split and
    carried to the others. A constant example becomes zeros.

    Args:
      arrays: float32 ``[N, ...]``.

    Returns:
      float32 of the same shape.

    Example:
      >>> standardise(np.array([[1.0, 3.0], [5.0, 5.0]], np.float32))
      array([[-1.,  1.],
             [ 0.,  0.]], dtype=float32)
    """
    axes = tuple(range(1, arrays.ndim))
    centred = arrays - arrays.mean(axis=axes, keepdims=True)
    scale = centred.std(axis=axes, keepdims=True)
    return np.asarray(centred / np.where(scale == 0.0, 1.0, scale), dtype=np.float32)
