"""Small files in the formats of the published datasets."""

import struct

import av
import numpy as np
import soundfile
from PIL import Image

CODECS = {".flv": "flv1", ".mp4": "mpeg4", ".avi": "mpeg4"}


def write_video(
    path,
    *,
    seconds=1.0,
    rate=10,
    shape=(48, 64),
    level=None,
    sound=None,
    sound_rate=8000,
):
    """Frame k of n is of one colour: red 255 k / n, green by `level`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(seconds * rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=rate)
        stream.height, stream.width = shape
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        track = None
        if sound is not None:
            track = container.add_stream("mp3" if path.suffix == ".flv" else "aac")
            track.rate = sound_rate
        for k in range(count):
            image = np.zeros((*shape, 3), np.uint8)
            image[..., 0] = 255 * k // count
            image[..., 1] = 0 if level is None else level
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
        if track is not None:
            frame = av.AudioFrame.from_ndarray(
                sound[None].astype(np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = sound_rate
            container.mux(track.encode(frame))
            container.mux(track.encode(None))


def tone(seconds, *, rate=16000, hz=440.0):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def write_wav(path, *, seconds=1.0, rate=16000, hz=440.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, rate=rate, hz=hz), rate, subtype="PCM_16")


def write_image(path, *, shape=(24, 32), value=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    noise = rng.integers(-8, 9, (*shape, 3))
    Image.fromarray((value + noise).clip(0, 255).astype(np.uint8)).save(path)


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HBB", 0, 8, array.ndim)
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + sizes + array.astype(np.uint8).tobytes())


def truncate(path, share=0.4):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
