"""Real digits: scikit-learn's and MNIST's, parted into splits that share no image."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ._limits import IDX_BYTES
from ._raw_files import check_file

NUM_CLASSES = 10

# Images of each class, in the order of a fixed permutation: train, validation, rest.
_IMAGES_PER_CLASS = {"train": slice(100), "validation": slice(100, 137)}
_IMAGES_PER_CLASS["test"] = slice(137, None)


def embedded_digits(
    split: str,
) -> tuple[NDArray[np.float32], list[NDArray[np.intp]]]:
    """The 8 × 8 optical digits of scikit-learn.

    Args:
      split: ``"train"`` (100 images of each class), ``"validation"`` (37) or ``"test"``
        (the rest).

    Returns:
      All images in [0, 1], float32 ``[1797, 8, 8]``, and the split's rows of them for
      each class. Of identical images only the first is in any split.

    Example:
      >>> images, rows = embedded_digits("validation")
      >>> images.shape, [len(row) for row in rows][:3]
      ((1797, 8, 8), [37, 37, 37])
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    # Of identical images only the first counts: two splits must not share content.
    _, unique = np.unique(pixels, axis=0, return_index=True)
    order = np.random.default_rng(0).permutation(np.sort(unique))
    chosen = _IMAGES_PER_CLASS[split]
    rows = [order[labels[order] == digit][chosen] for digit in range(NUM_CLASSES)]
    return (pixels.reshape(-1, 8, 8) / 16.0).astype(np.float32), rows


def mnist_digits(
    raw: Path, split: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.intp]]:
    """MNIST from its four IDX files.

    Args:
      raw: their directory.
      split: ``"test"`` is t10k; a tenth of the training images, always the same, is
        ``"validation"``.

    Returns:
      All images of the file, uint8 ``[M, 28, 28]``, their labels, uint8 ``[M]``, and
      the split's rows, in order.

    Raises:
      ValueError: as `read_idx`.
    """
    images, labels = labelled_digits(raw, "t10k" if split == "test" else "train")
    if split == "test":
        return images, labels, np.arange(len(images))
    order = np.random.default_rng(0).permutation(len(images))
    held = len(images) // 10
    rows = order[:held] if split == "validation" else order[held:]
    return images, labels, np.sort(rows)


def labelled_digits(
    raw: Path, prefix: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two IDX files that belong together.

    Args:
      raw: their directory.
      prefix: of their names.

    Returns:
      Images, uint8 ``[M, H, W]``, and labels from 0 to 9, uint8 ``[M]``.

    Raises:
      ValueError: as `read_idx`, or they are of another shape, or no such labels.
    """
    images = read_idx(raw, f"{prefix}-images-idx3-ubyte")
    labels = read_idx(raw, f"{prefix}-labels-idx1-ubyte")
    if images.ndim != 3 or labels.shape != images.shape[:1] or not images.size:
        raise ValueError(
            f"raw: expected images [M, H, W] and labels [M] in {raw}/{prefix}-*, "
            f"got {list(images.shape)} and {list(labels.shape)}"
        )
    if labels.max() >= NUM_CLASSES:
        raise ValueError(
            f"raw: {raw}/{prefix}-labels-idx1-ubyte: expected labels from 0 to 9, "
            f"got {labels.max()}"
        )
    return images, labels


def read_idx(raw: Path, name: str) -> NDArray[np.uint8]:
    """An array of bytes in the IDX format.

    Args:
      raw: the directory that the file is in.
      name: of the file, without ``.gz``.

    Returns:
      uint8, of the shape in the file's head.

    Raises:
      ValueError: there is no such file, or it is of another format or cut off.
    """
    path = raw / name
    packed = raw / f"{name}.gz"
    if not path.exists() and not packed.exists():
        raise ValueError(f"raw: {path} is missing (also as .gz)")
    path = path if path.exists() else packed
    try:
        check_file(path, raw)
        with path.open("rb") as file:
            return _read_idx(gzip.GzipFile(fileobj=file) if path == packed else file)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"raw: {path} {error}") from None


def _read_idx(file: BinaryIO | gzip.GzipFile) -> NDArray[np.uint8]:
    # Two zeros, 8 for unsigned bytes, the number of axes, then each one's size.
    head = file.read(4)
    if len(head) < 4 or head[:3] != b"\0\0\x08":
        raise ValueError("is no IDX file of bytes")
    shape = [int(n) for n in np.frombuffer(file.read(4 * head[3]), ">u4")]
    size = math.prod(shape)
    if size > IDX_BYTES:
        raise ValueError(f"tells of {size} bytes, more than the limit of {IDX_BYTES}")
    data = file.read(size + 1)  # one more, were there any
    if len(shape) != head[3] or len(data) < size:
        raise ValueError("is cut off")
    if len(data) > size:
        raise ValueError(f"holds more than the {size} bytes that its head tells of")
    return np.frombuffer(data, np.uint8).reshape(shape)
