"""Files of weights: what is read, and that nothing else is opened."""

import json
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from mmpareto_jax.models import ConcatFusion, load_torch, to_torch

WEIGHT = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
ARRAYS = {"linear.weight": WEIGHT, "linear.bias": np.array([0, 1], np.float32)}


def fusion():
    return ConcatFusion((2, 1), num_classes=2, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_a_safetensors_file(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    save_file({name: x.astype(dtype) for name, x in ARRAYS.items()}, path)
    model = fusion()
    load_torch(model, path)
    for name, array in to_torch(model).items():
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file(tmp_path, save):
    save(tmp_path / "weights.npz", **ARRAYS)
    model = fusion()
    load_torch(model, str(tmp_path / "weights.npz"))
    for name, array in to_torch(model).items():
        np.testing.assert_array_equal(array, ARRAYS[name])


class Opened:
    """What it says happens when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def tensors(head, data=b"", length=None):
    """A safetensors file with any head."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    number = len(text) if length is None else length
    return "safetensors", struct.pack("<Q", number) + text + data


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def npy(head, data=b""):
    text = head.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


SHAPE = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
DAMAGED = {
    "length of 1e18": tensors({}, length=10**18),
    "length of 2**64 - 1": tensors({}, length=2**64 - 1),
    "length beyond the file": tensors({}, length=1000),
    "empty file": ("safetensors", b""),
    "no json": tensors(b"{"),
    "a list": tensors(b"[]"),
    "deep": tensors(b"[" * 100_000),
    "no text": tensors(b"\xff\xfe"),
    "overlap": tensors({"a": tensor(), "b": tensor(offsets=(4, 12))}, bytes(12)),
    "negative size": tensors({"a": tensor(shape=(-2,))}, bytes(8)),
    "negative offset": tensors({"a": tensor(offsets=(-8, 0))}, bytes(8)),
    "unknown dtype": tensors({"a": tensor("Q32")}, bytes(8)),
    "overflow": tensors({"a": tensor(shape=(10**18, 10**18))}, bytes(8)),
    "another size": tensors({"a": tensor(shape=(3,))}, bytes(8)),
    "cut off": tensors({"a": tensor()}, bytes(4)),
    "twice": tensors(b'{"a":%s,"a":%s}' % ((json.dumps(tensor()).encode(),) * 2)),
    "four bits": tensors({"a": tensor("F4", offsets=(0, 1))}, bytes(1)),
    "complex": tensors({"a": tensor("C64", (1,))}, bytes(8)),
    "no zip": ("npz", b"no zip"),
    "negative size in npz": ("npz", npy(SHAPE % ("<f4", "(-2, 3)"), bytes(24))),
    "1e12 rows in npz": ("npz", npy(SHAPE % ("<f4", "(1000000000000, 3)"))),
    "overflow in npz": ("npz", npy(SHAPE % ("<f4", f"({10**30}, 3)"))),
    "a call in npz": ("npz", npy("__import__('os').mkdir('opened')")),
    "strings in npz": ("npz", npy(SHAPE % ("<U1", "(2,)"), bytes(8))),
    "complex in npz": ("npz", npy(SHAPE % ("<c8", "(1,)"), bytes(8))),
    "records in npz": ("npz", npy(SHAPE % ("[('a', '<f4')]", "(2,)"), bytes(8))),
    "nothing in npz": ("npz", b"", "linear.weight.npy"),
    "a program in npz": ("npz", b"", "archive/data.pkl"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_in_a_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, content, *name = DAMAGED[case]
    path = tmp_path / f"weights.{kind}"
    path.write_bytes(content)
    if kind == "npz" and case != "no zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(*name or ["linear.weight.npy"], content)
    model = fusion()
    before = to_torch(model)
    with pytest.raises(ValueError, match=r"^load_torch: .* cannot be read: .") as error:
        load_torch(model, path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == [path.name]
    for name, array in to_torch(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_objects_are_not_made(tmp_path):
    """Of an npz file, too: numpy would unpickle them if it were let."""
    path, trace = tmp_path / "weights.npz", tmp_path / "opened"
    np.savez(path, a=np.array([Opened(str(trace))], object))
    with pytest.raises(ValueError, match="it holds Python objects"):
        load_torch(fusion(), path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pkl", ""])
def test_a_file_of_torch_is_refused_with_the_way_to_convert_it(tmp_path, suffix):
    path, trace = tmp_path / f"weights{suffix}", tmp_path / "opened"
    path.write_bytes(pickle.dumps(Opened(str(trace))))
    with pytest.raises(ValueError, match=r"save_file\(torch\.load\(") as error:
        load_torch(fusion(), path)
    assert "\n" not in str(error.value)
    assert not trace.exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: None])
def test_what_is_no_file_is_not_opened(tmp_path, make):
    make(tmp_path / "weights.npz")
    with pytest.raises(ValueError, match="there is no such file"):
        load_torch(fusion(), tmp_path / "weights.npz")
