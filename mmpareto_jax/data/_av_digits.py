"""AV-digits: a spoken and a handwritten digit of one class, small enough to ship.

The clips are rendered speech (`render_av_digits`), the images the 8 × 8 optical
digits of scikit-learn. Training, validation and test share no clip, no voice and no
image. ``av_digits/README.md`` has origins and licences.
"""

import io
import json
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ._digit_images import NUM_CLASSES, embedded_digits
from ._features import log_mel, standardise
from ._split import SPLITS, Split, check_number, check_request, check_split

_NUM_SAMPLES = 5120  # 0.64 s at 8 kHz, longer than every clip; 32 frames
_UPSAMPLE = 2  # a pixel of 8 × 8 becomes 2 × 2
_DEFAULT_SIZE = {"train": 1000, "validation": 400, "test": 400}


@dataclass(frozen=True)
class AVClips:
    """Undistorted clips of one split.

    Attributes:
      waveform: float32 ``[N, 5120]``, 8 kHz, from the first sample, zeros behind.
      length: int32 ``[N]``, samples of each clip.
      label: int32 ``[N]``, the digit.
      voice: str ``[N]``, the speaker.
      accent: str ``[N]``, the espeak-ng language.
      sample_rate: Hz.
    """

    waveform: NDArray[np.float32]
    length: NDArray[np.int32]
    label: NDArray[np.int32]
    voice: NDArray[np.str_]
    accent: NDArray[np.str_]
    sample_rate: int


@dataclass(frozen=True)
class AVDigits:
    """Paired examples, and where each comes from.

    Attributes:
      audio: float32 ``[N, 32, 32, 1]``, standardised log-mel (mel, frame, channel).
      visual: float32 ``[N, 1, 16, 16, 1]``, standardised clip of one frame.
      label: int32 ``[N]``, the digit.
      clean_visual: float32 ``[N, 8, 8]`` in [0, 1], the image before degradation.
      clip_index: int32 ``[N]``, row in `load_av_clips` of the same split.
      image_index: int32 ``[N]``, row in ``sklearn.datasets.load_digits()``.
      voice: str ``[N]``, the speaker of the clip.
    """

    audio: NDArray[np.float32]
    visual: NDArray[np.float32]
    label: NDArray[np.int32]
    clean_visual: NDArray[np.float32]
    clip_index: NDArray[np.int32]
    image_index: NDArray[np.int32]
    voice: NDArray[np.str_]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a model sees: audio, visual and label, for the input pipeline."""
        return {"audio": self.audio, "visual": self.visual, "label": self.label}


def load_av_clips(split: Split) -> AVClips:
    """Decode the spoken digits of a split.

    Args:
      split: ``"train"`` (18 voices), ``"validation"`` or ``"test"`` (6 each); each
        voice says each digit five times.

    Returns:
      The clips: 900, 300, 300.

    Raises:
      ValueError: When ``split`` is none of the three.

    Example:
      >>> clips = load_av_clips("test")
      >>> clips.waveform.shape, clips.sample_rate
      ((300, 5120), 8000)
      >>> [str(voice) for voice in np.unique(clips.voice)]
      ['Gene', 'Hugo', 'edward', 'grandma', 'm6', 'steph']
    """
    check_split("load_av_clips", split)
    import soundfile

    folder = resources.files(__package__) / "av_digits"
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    encoded = io.BytesIO((folder / f"{split}.ogg").read_bytes())
    stream, rate = soundfile.read(encoded, dtype="float32")
    columns = dict(
        zip(index["columns"], zip(*index["clips"][split], strict=True), strict=True)
    )
    waveform = np.zeros((len(columns["start"]), _NUM_SAMPLES), np.float32)
    for row, start, length in zip(
        waveform, columns["start"], columns["length"], strict=True
    ):
        row[:length] = stream[start : start + length]
    return AVClips(
        waveform=waveform,
        length=np.array(columns["length"], np.int32),
        label=np.array(columns["digit"], np.int32),
        voice=np.array(columns["voice"]),
        accent=np.array(columns["accent"]),
        sample_rate=rate,
    )


def load_av_digits(
    split: Split,
    *,
    num_examples: int | None = None,
    audio_snr_db: float = 3.0,
    visual_noise: float = 0.3,
    visual_occlusion: int = 3,
    seed: int = 0,
) -> AVDigits:
    r"""Pair spoken and handwritten digits, and make both hard to read.

    Example i has label i mod 10. Within a class, clips and images are each permuted
    and walked through side by side, shifted by one whenever the walk would repeat, so
    that all pairs come once before any comes twice. Then, with its own random stream
    for (seed, split, i), each example is degraded:

    * audio: the clip, scaled to RMS 1 and placed at a random time in 0.64 s, plus
      white Gaussian noise of standard deviation :math:`10^{-\text{snr} / 20}`;
      then `log_mel` and `standardise`;
    * visual: the image in [0, 1] with a square of ``visual_occlusion`` pixels set to
      0 at a random place, plus white Gaussian noise of standard deviation
      ``visual_noise``; each pixel doubled to 16 × 16 (three strides of two still
      leave a spatial extent); then `standardise`.

    The first n examples are the same whatever ``num_examples`` is, and do not depend
    on anything but the arguments.

    Args:
      split: ``"train"``, ``"validation"`` or ``"test"``.
      num_examples: N; by default 1000, 400, 400.
      audio_snr_db: Signal-to-noise ratio in dB over the clip; ``inf`` adds none.
      visual_noise: Standard deviation of the noise; black is 0, ink 1.
      visual_occlusion: Side of the occluding square, in pixels of the 8 × 8 image.
      seed: Of pairing and degradation; non-negative. The splits do not depend on it.

    Returns:
      The examples.

    Raises:
      ValueError: When an argument is outside its range, or ``num_examples`` exceeds
        the number of distinct pairs.

    Example:
      >>> data = load_av_digits("validation", num_examples=12)
      >>> {name: array.shape for name, array in data.arrays.items()}
      {'audio': (12, 32, 32, 1), 'visual': (12, 1, 16, 16, 1), 'label': (12,)}
      >>> data.label
      array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1], dtype=int32)
    """
    name = "load_av_digits"
    count = check_request(name, split, num_examples, _DEFAULT_SIZE, seed)
    for argument, number in (
        ("audio_snr_db", audio_snr_db),
        ("visual_noise", visual_noise),
        ("visual_occlusion", visual_occlusion),
    ):
        check_number(f"{name}: {argument}", number)
    if np.isnan(audio_snr_db) or audio_snr_db == -np.inf:
        raise ValueError(
            f"{name}: audio_snr_db: expected a number of dB or inf, got {audio_snr_db}"
        )
    if not 0.0 <= visual_noise < np.inf:
        raise ValueError(
            f"{name}: visual_noise: expected a finite standard deviation >= 0, "
            f"got {visual_noise}"
        )
    if not 0 <= visual_occlusion <= 8:
        raise ValueError(
            f"{name}: visual_occlusion: expected 0 to 8 pixels, got {visual_occlusion}"
        )

    clips = load_av_clips(split)
    images, image_rows = embedded_digits(split)
    stream = SPLITS.index(split)
    # Trailing zeros do not change a seed: (seed, stream) would be example 0's stream.
    rng = np.random.default_rng((seed, stream, 0))
    clip_index = np.empty(count, np.int32)
    image_index = np.empty(count, np.int32)
    for digit in range(NUM_CLASSES):
        clip_rows = rng.permutation(np.flatnonzero(clips.label == digit))
        digit_rows = rng.permutation(image_rows[digit])
        pairs = np.arange(len(range(digit, count, NUM_CLASSES)))
        possible = clip_rows.size * digit_rows.size
        if pairs.size > possible:
            raise ValueError(
                f"{name}: num_examples: expected at most {NUM_CLASSES * possible} "
                f"(distinct pairs of a {digit} in split {split!r}), got {count}"
            )
        shift = pairs // np.lcm(clip_rows.size, digit_rows.size)
        clip_index[digit::NUM_CLASSES] = clip_rows[pairs % clip_rows.size]
        image_index[digit::NUM_CLASSES] = digit_rows[(pairs + shift) % digit_rows.size]

    waveform = np.zeros((count, _NUM_SAMPLES), np.float32)
    visual = images[image_index]  # a copy
    clean_visual = visual.copy()
    noise_std = np.float32(10.0 ** (-audio_snr_db / 20.0))
    for i in range(count):
        # Every draw is made whatever the levels are: raising one level must not
        # change the noise pattern of the other modality.
        rng = np.random.default_rng((seed, stream, 1 + i))
        clip = clips.waveform[clip_index[i], : clips.length[clip_index[i]]]
        start = rng.integers(_NUM_SAMPLES - clip.size + 1)
        waveform[i, start : start + clip.size] = clip / np.sqrt(np.mean(clip**2))
        waveform[i] += noise_std * rng.standard_normal(_NUM_SAMPLES, np.float32)
        top, left = (rng.random(2) * (9 - visual_occlusion)).astype(int)
        bottom, right = top + visual_occlusion, left + visual_occlusion
        visual[i, top:bottom, left:right] = 0.0
        visual[i] += np.float32(visual_noise) * rng.standard_normal((8, 8), np.float32)

    large = visual.repeat(_UPSAMPLE, axis=1).repeat(_UPSAMPLE, axis=2)
    return AVDigits(
        audio=standardise(log_mel(waveform))[..., None],
        visual=standardise(large)[:, None, :, :, None],
        label=np.arange(count, dtype=np.int32) % NUM_CLASSES,
        clean_visual=clean_visual,
        clip_index=clip_index,
        image_index=image_index,
        voice=clips.voice[clip_index],
    )
