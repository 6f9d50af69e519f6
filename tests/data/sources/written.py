"""Files of the published layouts, as the tests write them."""

import gzip
import json
import struct

import numpy as np


def left_out(out):
    """Id -> what the report says of it; all of it, where one reason has ten at most."""
    report = json.loads((out / "report.json").read_text())
    found = {x["id"]: x for group in report["reasons"] for x in group["examples"]}
    assert report["left_out"] == sum(group["count"] for group in report["reasons"])
    return found


def reasons(out):
    return {name: x["reason"] for name, x in left_out(out).items()}


SIZE = (6, 8)
COUNTS = {"train": 20, "val": 7}


def arrays_of(part, number, classes):
    rng = np.random.default_rng([part == "val", number])
    normal = rng.normal(size=(*SIZE, 3))
    normal[0, 0] = 0
    return {
        "image": rng.integers(256, size=(*SIZE, 3)) / 255.0,
        "label": rng.integers(-1, classes, SIZE).astype(np.float64),
        "depth": rng.uniform(0, 9, (*SIZE, 1)),
        "normal": normal,
    }


def write(root, folders, classes):
    """Folder -> name of its array."""
    for part, number in COUNTS.items():
        for folder in folders:
            (root / part / folder).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            arrays = arrays_of(part, i, classes)
            for folder, name in folders.items():
                np.save(root / part / folder / f"{i}.npy", arrays[name])
    return root


def nyuv2(root):
    return write(root, {x: x for x in ("image", "label", "depth", "normal")}, 13)


def mnist(root, pack=False, number=60):
    """Every image has the value of its row, and its label is that modulo ten."""
    root.mkdir()
    for prefix in ("train", "t10k"):
        images = np.zeros((number, 28, 28), np.uint8)
        images[:, 4:24, 4:24] = 100 + np.arange(number)[:, None, None]
        images[:, 10, 10] = 255
        for kind, x in (("images-idx3", images), ("labels-idx1", images[:, 4, 4] % 10)):
            head = struct.pack(">HBB", 0, 8, x.ndim) + struct.pack(
                f">{x.ndim}I", *x.shape
            )
            data = head + x.astype(np.uint8).tobytes()
            path = root / f"{prefix}-{kind}-ubyte"
            if pack:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(data))
            else:
                path.write_bytes(data)
    return root
