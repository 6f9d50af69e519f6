"""Decoding of sound, video and images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image
from scipy import signal

from mmpareto_jax.data._limits import FRAMES, PIXELS, SAMPLE_RATE, SAMPLES, SECONDS
from mmpareto_jax.data.sources._plan import UnusableError, reading

# A file that ends before this share of what its head says was cut off.
_COMPLETE = 0.75
_STREAMED = 0xFFFFFFFF  # the size in the head of a WAV file that was written to a pipe
# Files of media alone: a playlist of FFmpeg's, or a program for a printer, can name
# other files, whatever its own name is.
_PLAIN = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,flv,avi,matroska,wav,mp3,aac,ogg,flac,mpeg,mpegts,asf",
}
_IMAGES = ("PNG", "JPEG", "WEBP", "BMP")


def read_sound(path: str | Path, sample_rate: int) -> np.ndarray:
    """Mono sound at a sample rate, from an audio file or a video's first track.

    Args:
      path: WAV, FLAC, OGG, ... (soundfile), or what FFmpeg reads.
      sample_rate: in Hz.

    Returns:
      float32 [samples], about -1 to 1.

    Raises:
      UnusableError: there is no sound in it, or it is not finite or too long; or the
        file was cut off.
    """
    with reading(path):
        _check_riff(Path(path))
        try:
            mono, rate = _sound_file(path)
        except soundfile.LibsndfileError:
            mono, rate = _track(path)
        if not len(mono):
            raise UnusableError("no sound")
        if not np.isfinite(mono).all():
            raise UnusableError("the sound is not finite")
        if rate == sample_rate:
            return np.asarray(mono, np.float32)
        shared = math.gcd(rate, sample_rate)
        resampled = signal.resample_poly(mono, sample_rate // shared, rate // shared)
        return np.asarray(resampled, np.float32)


def _sound_file(path: str | Path) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(str(path)) as file:
        return _joined(_blocks(file), file.samplerate)


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Mono. Never as much at once as the head tells of, which may be anything."""
    while len(block := file.read(2**16, dtype="float32", always_2d=True)):
        yield block.mean(axis=1)


def _joined(pieces: Iterable[np.ndarray], rate: int) -> tuple[np.ndarray, int]:
    """All pieces of a track, and its rate; as soon as it is too long, none."""
    if not 0 < rate <= SAMPLE_RATE:
        raise UnusableError(f"{rate} samples a second, the limit is {SAMPLE_RATE}")
    most = min(rate * SECONDS, SAMPLES)
    samples, kept = 0, [np.zeros(0, np.float32)]
    for piece in pieces:
        samples += len(piece)
        if samples > most:
            raise UnusableError(f"too long: more than the limit of {most} samples")
        kept.append(piece)
    return np.concatenate(kept), rate


def _check_riff(path: Path) -> None:
    """Refuses a WAV file that is shorter than it says; soundfile would not mind."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != b"RIFF" or len(head) < 8:
        return
    told, found = 8 + int.from_bytes(head[4:8], "little"), path.stat().st_size
    if told != 8 + _STREAMED and found < _COMPLETE * told:
        raise UnusableError(f"cut off after {found} of {told} bytes")


def _opened(path: str | Path) -> Any:
    return av.open(str(path), container_options=_PLAIN)


def _track(path: str | Path) -> tuple[np.ndarray, int]:
    with _opened(path) as container:
        if not container.streams.audio:
            raise UnusableError("no audio track")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("fltp", "mono", stream.rate)
        pieces = (
            piece.to_ndarray()[0]
            for frame in container.decode(stream)
            for piece in resampler.resample(frame)
        )
        return _joined(pieces, stream.rate)


def read_frames(path: str | Path, parts: int, candidates: int, size: int) -> np.ndarray:
    """Frames of a video, spread evenly over equal parts of it.

    Args:
      path: the video.
      parts: into how many parts its length is divided.
      candidates: frames from each part, in the middles of equal pieces.
      size: height and width; frames are squeezed to a square, as the literature's
        loaders do.

    Returns:
      uint8 [parts, candidates, size, size, 3], RGB.

    Raises:
      UnusableError: there is no video in it, it has fewer frames than parts, or it ends
        long before the duration in its head; or it is too long, or too large.
    """
    with reading(path):
        # A second pass costs less than keeping every frame of a clip in memory.
        count = _count_frames(path)
        if count < parts:
            raise UnusableError(f"too short: {count} frames for {parts} parts")
        total = parts * candidates
        wanted = [int((k + 0.5) / total * count) for k in range(total)]
        kept: dict[int, np.ndarray] = {}
        with _opened(path) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    kept[number] = frame.reformat(
                        size, size, "rgb24", interpolation="BILINEAR"
                    ).to_ndarray()
        frames = np.stack([kept[number] for number in wanted])
        return frames.reshape(parts, candidates, size, size, 3)


def _count_frames(path: str | Path) -> int:
    with _opened(path) as container:
        if not container.streams.video:
            raise UnusableError("no video track")
        stream = container.streams.video[0]
        count, last = 0, 0.0
        _check_pixels(stream.width, stream.height)
        for frame in container.decode(stream):
            _check_pixels(frame.width, frame.height)
            count += 1
            if count > FRAMES:
                raise UnusableError(f"too long: more than the limit of {FRAMES} frames")
            last = frame.time or last
        if container.duration and stream.average_rate:
            told = container.duration / av.time_base
            found = last + 1 / float(stream.average_rate)
            if found < _COMPLETE * told:
                raise UnusableError(f"cut off after {found:.1f} of {told:.1f} s")
        return count


def read_image(path: str | Path, size: int, mode: str = "RGB") -> np.ndarray:
    """An image, squeezed to a square.

    Args:
      path: PNG, JPEG, WebP or BMP.
      size: height and width.
      mode: Pillow's: "RGB", or "L" for gray.

    Returns:
      uint8 [size, size, 3], or [size, size] in gray.

    Raises:
      UnusableError: the file is none of these, or has too many pixels.
    """
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
        with Image.open(path, formats=_IMAGES) as image:
            _check_pixels(*image.size)
            square = image.convert(mode).resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(square)


def _check_pixels(width: int, height: int) -> None:
    if width * height > PIXELS:
        raise UnusableError(f"{width} x {height} pixels, the limit is {PIXELS}")


def tiled(samples: np.ndarray, length: int) -> np.ndarray:
    """The sound, repeated up to a length and cut there."""
    return np.tile(samples, -(-length // len(samples)))[:length]


def log_stft(samples: np.ndarray, size: int, hop: int) -> np.ndarray:
    r"""Log-magnitude spectrogram: :math:`\log(|STFT| + 10^{-7})`.

    Periodic Hann window; the signal is reflected by half a window at both ends.

    Args:
      samples: [n].
      size: of the window and the transform.
      hop: between windows.

    Returns:
      float32 [size / 2 + 1, 1 + n // hop].
    """
    padded = np.pad(samples.astype(np.float64), size // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = signal.get_window("hann", size)
    spectrum = np.abs(np.fft.rfft(windows * window, axis=1)).T
    return np.asarray(np.log(spectrum + 1e-7), np.float32)


def fbank(samples: np.ndarray, sample_rate: int, num_mels: int = 128) -> np.ndarray:
    """Log-mel filter banks as Kaldi computes them.

    Frames of 25 ms every 10 ms; each has its mean removed, pre-emphasis 0.97 and a
    symmetric Hann window; power spectrum; triangles equally wide in mel from 20 Hz to
    the Nyquist frequency; natural logarithm. No dither.

    Args:
      samples: [n], at least a frame.
      sample_rate: in Hz.
      num_mels: number of filters.

    Returns:
      float32 [frames, num_mels].

    Raises:
      UnusableError: shorter than a frame.

    References:
      Povey et al., The Kaldi Speech Recognition Toolkit, ASRU 2011.
    """
    length, shift = sample_rate * 25 // 1000, sample_rate * 10 // 1000
    if len(samples) < length:
        raise UnusableError(f"too short: {len(samples)} samples of sound")
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)[::shift]
    frames = frames.astype(np.float64)
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - 0.97 * before) * signal.get_window("hann", length, fftbins=False)
    size = 1 << (length - 1).bit_length()
    power = np.abs(np.fft.rfft(frames, size, axis=1)) ** 2
    banks = power[:, :-1] @ _mel_triangles(size, sample_rate, num_mels)
    smallest = np.finfo(np.float32).eps
    return np.asarray(np.log(np.maximum(banks, smallest)), np.float32)


def _mel_triangles(size: int, sample_rate: int, num_mels: int) -> np.ndarray:
    """[size / 2, num_mels]: linear flanks on the mel scale."""
    frequencies = np.arange(size // 2) * sample_rate / size
    low, high = 1127 * np.log1p(np.array([20.0, sample_rate / 2]) / 700)
    edges = np.linspace(float(low), float(high), num_mels + 2)
    points = 1127 * np.log1p(frequencies / 700)[:, None]
    rising = (points - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - points) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))
