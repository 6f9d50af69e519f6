"""Files of weights, of kinds that hold arrays and nothing that could run."""

import zipfile
from pathlib import Path

import numpy as np

from mmpareto_jax._array_files import read_npz


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file.

    Args:
      path: ``.safetensors`` (needs the package safetensors) or ``.npz``.

    Returns:
      Name -> array of numbers.

    Raises:
      ValueError: a file of another kind, as of ``torch.save``, which can run anything;
        or it is damaged, or holds something else.
      ImportError: safetensors is not installed.
    """
    path = Path(path)
    kinds = {".safetensors": _safetensors, ".npz": _npz}
    if path.suffix not in kinds:
        raise ValueError(
            f"load_torch: {path}: expected .safetensors or .npz; opening a file of "
            "torch.save can run anything. In PyTorch: from safetensors.torch import "
            f"save_file; save_file(torch.load({str(path)!r}, weights_only=True), "
            "'weights.safetensors')"
        )
    if not path.is_file():
        raise ValueError(f"load_torch: {path}: there is no such file")
    try:
        arrays = kinds[path.suffix](path)
        for name, array in arrays.items():
            if array.dtype.kind in "cSU":
                raise ValueError(
                    f"{name!r:.60}: expected real numbers, got {array.dtype}"
                )
    except ImportError:
        raise
    except Exception as error:  # whatever a damaged file makes of it
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"load_torch: {path} cannot be read: {said:.300}") from None
    return arrays


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    arrays: dict[str, np.ndarray] = load_file(path)
    return arrays


def _npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for name in names:
        if not name.endswith(".npy"):
            raise ValueError(f"{name!r:.60} is no array")
    return {
        name.removesuffix(".npy"): read_npz(path, name.removesuffix(".npy"))
        for name in names
    }
