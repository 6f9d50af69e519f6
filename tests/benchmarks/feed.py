"""What the feed gives, and how long the device waits for it.

``python tests/benchmarks/feed.py`` writes a few hundred clips (WAV at 16 kHz, FLV of
480 x 360 at 30 frames/s, 2.5 s) to a temporary directory, prepares them and feeds
training batches. Then it trains the embedded jobs and CREMA-D's (ResNet-18), and prints
what share of the time the device had nothing to do while a batch was made; at most that,
since a step may have ended at any time while it was. Needs the ``train`` extra.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

import av
import jax
import numpy as np
import soundfile

from mmpareto_jax.data import augmentation, train_batches
from mmpareto_jax.data.sources import open_prepared, plan_of, prepare
from mmpareto_jax.training import Config
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._tasks.registry import make_task
from mmpareto_jax.training._tasks.settled import settled

SECONDS, RATE, SHAPE = 2.5, 30, (360, 480)
WARM = 4  # steps


def write_clips(raw: Path, number: int) -> None:
    """Noise that moves, so that frames cost what real ones do."""
    rng = np.random.default_rng(0)
    (raw / "AudioWAV").mkdir(parents=True)
    (raw / "VideoFlash").mkdir()
    small = rng.integers(0, 256, (SHAPE[0] // 8 + 80, SHAPE[1] // 8, 3), np.uint8)
    picture = small.repeat(8, axis=0).repeat(8, axis=1)
    for k in range(number):
        name = f"{1001 + k % 91}_IEO_{('ANG', 'SAD')[k % 2]}_XX"
        if k >= 91:
            name = f"{1001 + k % 91}_{chr(65 + k // 91)}AA_ANG_XX"
        sound = 0.1 * rng.normal(size=int(SECONDS * 16_000))
        soundfile.write(raw / "AudioWAV" / f"{name}.wav", sound, 16_000)
        path = raw / "VideoFlash" / f"{name}.flv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("flv1", rate=RATE)
            stream.height, stream.width = SHAPE
            stream.pix_fmt, stream.bit_rate = "yuv420p", 600_000
            for frame in range(int(SECONDS * RATE)):
                image = np.ascontiguousarray(picture[frame : frame + SHAPE[0]])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
            container.mux(stream.encode(None))


def feeding_rate(arrays, transform, batch_size: int, seconds: float) -> float:
    """Examples per second, once the first batches are through."""
    batches = train_batches(arrays, batch_size=batch_size, seed=0, transform=transform)
    for _ in itertools.islice(batches, 3):
        pass
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        count += batch_size
    return count / (time.perf_counter() - start)


def waiting(config: Config, steps: int) -> tuple[float, float]:
    """The share of the time that the device waits for data, at most; s of a step."""
    task, config = settled(make_task(config), config)
    program = make_program(config, task)
    state, packing = program.restart(0, config.lr), None
    batches = train_batches(
        task.data["train"],
        batch_size=config.batch_size,
        seed=0,
        transform=task.transform,
    )
    waited, start = 0.0, 0.0
    for step in range(WARM + steps):
        if step == WARM:  # compiled, and the feed is under way
            jax.block_until_ready(state)
            waited, start = 0.0, time.perf_counter()
        before = time.perf_counter()
        batch = next(batches)
        after = time.perf_counter()
        packing = packing or program.tally(state, batch)
        if state.step.is_ready():
            waited += after - before
        state, _ = program.logged(state, packing.empty(), batch)
    jax.block_until_ready(state)
    total = time.perf_counter() - start
    return waited / total, total / steps


def wait_of(config: Config, steps: int) -> None:
    """Prints it."""
    share, seconds = waiting(config, steps)
    print(
        f"| {config.task} | {config.batch_size} | {1e3 * seconds:.1f} | "
        f"{100 * share:.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=64, help="of CREMA-D")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--crema-steps", type=int, default=30)
    options = parser.parse_args()
    header = (
        "| job | batch | ms a step | the device waits, % at most |\n|---|---|---|---|"
    )
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores\n\n{header}")
    for name in ("av-digits", "multi-digits", "digit-tasks", "scenes"):
        wait_of(Config(name), options.steps)
    with tempfile.TemporaryDirectory() as directory:
        raw, out = Path(directory, "raw"), Path(directory, "out")
        write_clips(raw, options.clips)
        start = time.perf_counter()
        prepare(plan_of("crema-d", raw), out, workers=options.workers)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in out.iterdir())
        arrays = open_prepared(out).arrays["train"]
        crops = augmentation({"visual": 224})
        print(f"{os.cpu_count()} cores, {options.clips} clips")
        print(f"prepare: {options.clips / seconds:.0f} clips/s")
        print(f"on disk: {size / options.clips / 1e6:.2f} MB a clip")
        for name, transform in (("as they are", None), ("cropped", crops)):
            rate = feeding_rate(arrays, transform, 64, options.seconds)
            print(f"feed, {name}: {rate:.0f} examples/s")
        print(f"\n{header}")
        own = Config("crema-d", data=str(out), batch_size=options.batch)
        wait_of(own, options.crema_steps)


if __name__ == "__main__":
    main()
