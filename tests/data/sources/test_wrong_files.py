"""Raw files that are wrong: refused in a line, or left out with a reason and a file.

Whatever lies outside of the raw directory is not read, and nothing is written outside
of the directory that was named.
"""

import gzip
import json
import os
import shutil
import struct

import numpy as np
import pytest
import soundfile
from clips import write_idx, write_image, write_video, write_wav
from PIL import Image
from written import left_out, mnist, nyuv2

from mmpareto_jax.cli import main
from mmpareto_jax.data import _digit_images, _raw_files
from mmpareto_jax.data.sources import _engine, _media, check_prepared, prepare
from mmpareto_jax.data.sources import plan_of as plan
from mmpareto_jax.data.sources._plan import Problem
from mmpareto_jax.data.sources._report import by_reason


def crema_d(root):
    for actor in range(1001, 1005):
        for emotion in ("ANG", "SAD"):
            name = f"{actor}_DFA_{emotion}_XX"
            write_wav(root / "AudioWAV" / f"{name}.wav", seconds=0.3)
            write_video(root / "VideoFlash" / f"{name}.flv", seconds=0.6)
    names = sorted(x.stem for x in (root / "AudioWAV").iterdir())
    for split, part in (("train", names[:6]), ("test", names[6:])):
        lines = "".join(f"{name},{name[9:12]}\n" for name in part)
        (root / f"{split}.csv").write_text(lines)


def ucf_101(root):
    lists = {"train": [], "test": []}
    for group in range(1, 6):
        clip = f"v_Archery_g{group:02}_c01"
        lists["test" if group == 5 else "train"].append(f"Archery/{clip}.avi")
        write_video(root / "videos" / "Archery" / f"{clip}.avi", seconds=0.6)
        for axis in "uv":
            for frame in range(3):
                write_image(root / "flow" / axis / clip / f"frame{frame}.jpg")
    for split, lines in lists.items():
        (root / f"{split}list01.txt").write_text("\n".join(lines) + "\n")


def modelnet40(root):
    for split, number in (("train", 3), ("test", 1)):
        for item in range(number):
            for view in range(12):
                name = f"chair_{split}{item}.obj.shaded_v{view:03}.png"
                write_image(root / "chair" / split / name)


def arrays(root):
    root.mkdir()
    rng = np.random.default_rng(0)
    np.save(root / "x.npy", rng.normal(size=(30, 4)).astype(np.float32))
    np.save(root / "label.npy", np.arange(30) % 3)


MAKERS = {
    "crema-d": crema_d,
    "ucf-101": ucf_101,
    "modelnet40": modelnet40,
    "nyuv2": nyuv2,
    "colored-digits": mnist,
    "arrays": arrays,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole raw directory of each data set, made when it is asked for."""
    root = tmp_path_factory.mktemp("raw")

    def find(name):
        if not (root / name).exists():
            MAKERS[name](root / name)
        return root / name

    return find


@pytest.fixture
def raw_of(made, tmp_path):
    """A copy that may be spoilt."""
    return lambda name: shutil.copytree(made(name), tmp_path / "raw")


def everything(root):
    return {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}


# --- What is said once, and nothing is written


def emptied(*folders):
    def change(raw):
        for folder in folders:
            shutil.rmtree(raw / folder)
            (raw / folder).mkdir()

    return change


def text(name, content):
    def change(raw):
        data = content if isinstance(content, bytes) else content.encode()
        (raw / name).write_bytes(data)

    return change


def first_line(name, line):
    """Before those that are there."""
    return lambda raw: (raw / name).write_text(f"{line}\n{(raw / name).read_text()}")


def linked(name, target):
    def change(raw):
        (raw / name).unlink()
        (raw / name).symlink_to(target)

    return change


def pipe(name):
    def change(raw):
        (raw / name).unlink()
        os.mkfifo(raw / name)

    return change


def npy(name, shape, descr="<f4", data=b""):
    """A file of this head."""
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    head = head.encode().ljust(117) + b"\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head))
    return text(name, start + head + data)


def idx(name, array):
    return lambda raw: write_idx(raw / name, array)


def packed(name, shape, size):
    """A gz file that unpacks to `size` bytes, whatever its head tells of."""

    def change(raw):
        (raw / name).unlink()
        with gzip.open(raw / f"{name}.gz", "wb", compresslevel=1) as file:
            file.write(struct.pack(">HBB", 0, 8, len(shape)))
            file.write(struct.pack(f">{len(shape)}I", *shape))
            for _ in range(size // 2**20):
                file.write(bytes(2**20))

    return change


def put(name, array):
    return lambda raw: np.save(raw / name, array)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
LISTED = "expected <class>/<clip>.avi, got"
REFUSED = {
    "empty": ("crema-d", emptied("AudioWAV", "VideoFlash"), "0 examples, none for tr"),
    "no video": (
        "crema-d",
        emptied("VideoFlash"),
        "8 left out, 8 of them as .*: no video",
    ),
    "no split": ("crema-d", lambda raw: None, "needs .*train.csv", "none"),
    "csv is binary": (
        "crema-d",
        text("train.csv", b"\xff\xfe\0"),
        "train.csv: 'utf-8'",
    ),
    "csv is a pipe": ("crema-d", pipe("train.csv"), "train.csv: is no plain file"),
    "csv with a huge field": (
        "crema-d",
        text("train.csv", '"' + "x" * 200_000),
        "train.csv: field larger than field limit",
    ),
    "list climbs": (
        "ucf-101",
        first_line("trainlist01.txt", "../../etc/passwd.avi"),
        f"trainlist01.txt: {LISTED} '../../etc/passwd.avi'",
    ),
    "list is absolute": (
        "ucf-101",
        first_line("trainlist01.txt", "/etc/passwd"),
        f"{LISTED} '/etc/passwd'",
    ),
    "class ..": ("ucf-101", first_line("trainlist01.txt", "../x.avi"), LISTED),
    "class .": ("ucf-101", first_line("trainlist01.txt", "./x.avi"), LISTED),
    "no class": ("ucf-101", first_line("testlist01.txt", "x.avi"), LISTED),
    "no clip": ("ucf-101", first_line("testlist01.txt", "Archery/"), LISTED),
    "NUL": ("ucf-101", first_line("testlist01.txt", "Archery/\0.avi"), LISTED),
    "long": ("ucf-101", first_line("testlist01.txt", "x" * 10**6), LISTED),
    "twice": (
        "ucf-101",
        first_line("testlist01.txt", "Archery/v_Archery_g01_c01.avi"),
        "the lists have 'Archery/v_Archery_g01_c01.avi' 2 times",
    ),
    "list of bytes": (
        "ucf-101",
        text("testlist01.txt", b"\xff"),
        "'utf-8' codec can't",
    ),
    "list is a link": (
        "ucf-101",
        linked("testlist01.txt", "/etc/hostname"),
        "testlist01.txt: lies outside of .*: copy it there",
    ),
    "list is a device": (
        "ucf-101",
        linked("testlist01.txt", "/dev/zero"),
        "testlist01.txt: lies outside of",
    ),
    "idx images cut off": (
        "colored-digits",
        lambda raw: (raw / IMAGES).write_bytes((raw / IMAGES).read_bytes()[:-9]),
        f"{IMAGES} is cut off",
    ),
    "idx images with more": (
        "colored-digits",
        lambda raw: (raw / IMAGES).write_bytes((raw / IMAGES).read_bytes() + b"x"),
        f"{IMAGES} holds more than the 47040 bytes",
    ),
    "idx labels 2-D": (
        "colored-digits",
        idx(LABELS, np.zeros((60, 1))),
        r"got \[60, 28, 28\] and \[60, 1\]",
    ),
    "idx labels fewer": (
        "colored-digits",
        idx(LABELS, np.zeros(50)),
        r"got \[60, 28, 28\] and \[50\]",
    ),
    "idx label 200": (
        "colored-digits",
        idx(LABELS, np.full(60, 200)),
        "expected labels from 0 to 9, got 200",
    ),
    "idx images flat": (
        "colored-digits",
        idx(IMAGES, np.zeros((60, 784))),
        r"got \[60, 784\] and \[60\]",
    ),
    "idx of no images": (
        "colored-digits",
        lambda raw: (
            idx(IMAGES, np.zeros((0, 28, 28)))(raw),
            idx(LABELS, np.zeros(0))(raw),
        ),
        r"got \[0, 28, 28\] and \[0\]",
    ),
    "idx of floats": (
        "colored-digits",
        text(LABELS, b"\0\0\x0d\x01" + bytes(64)),
        "is no IDX file of bytes",
    ),
    "idx tells of 2**96 bytes": (
        "colored-digits",
        text(IMAGES, b"\0\0\x08\x03" + b"\xff" * 12),
        "tells of 792281624.* bytes, more than the limit of 1073741824",
    ),
    "idx of 255 axes": (
        "colored-digits",
        text(LABELS, b"\0\0\x08\xff" + b"\0\0\0\1" * 255),
        "is cut off",
    ),
    "gz that unpacks to more": (
        "colored-digits",
        packed(LABELS, (60,), 2**26),
        f"{LABELS}.gz holds more than the 60 bytes",
    ),
    "gz that tells of 3 GB": (
        "colored-digits",
        packed(LABELS, (3 * 10**9,), 0),
        "tells of 3000000000 bytes, more than the limit",
    ),
    "gz that is none": (
        "colored-digits",
        lambda raw: (raw / LABELS).rename(raw / f"{LABELS}.gz"),
        f"{LABELS}.gz Not a gzipped file",
    ),
    "idx is a pipe": ("colored-digits", pipe(LABELS), f"{LABELS} is no plain file"),
    "idx is a link": (
        "colored-digits",
        linked(IMAGES, "/etc/hostname"),
        f"{IMAGES} lies outside of",
    ),
    "npy negative": ("arrays", npy("x.npy", "(-30, 4)"), "x.npy: .*of a negative size"),
    "npy of 1e12 rows": (
        "arrays",
        npy("x.npy", "(10000000000000, 4)"),
        "x.npy: .*cut",
    ),
    "npy overflows": (
        "arrays",
        npy("x.npy", f"({10**40}, 4)"),
        "x.npy: cannot be read",
    ),
    "npy of nothing": (
        "arrays",
        npy("x.npy", "(30, 4)", "|S0"),
        "x.npy: .*expected numbers or strings",
    ),
    "npy of records": (
        "arrays",
        npy("x.npy", "(30,)", [("a", "<f4")], bytes(120)),
        "x.npy: .*expected numbers or strings",
    ),
    "npy of dates": (
        "arrays",
        npy("x.npy", "(30, 1)", "<M8[s]", bytes(240)),
        "x.npy: .*expected numbers or strings",
    ),
    "npy is a call": (
        "arrays",
        npy("x.npy", "__import__('os').getcwd()"),
        "x.npy: cannot be read",
    ),
    "npy of objects": ("arrays", put("x.npy", np.array([[{}]] * 30)), "Python objects"),
    "npy complex": ("arrays", put("x.npy", np.ones((30, 4)) * 1j), "floats or uint8"),
    "npy with NaN": (
        "arrays",
        put("x.npy", np.full((30, 4), np.nan)),
        "x: row 0: not finite as float32",
    ),
    "npy of 1e300": (
        "arrays",
        put("x.npy", np.full((30, 4), 1e300)),
        "x: row 0: not finite as float32",
    ),
    "npy is a pipe": (
        "arrays",
        pipe("x.npy"),
        "x.npy: .*is no plain",
    ),
    "npy is a link": (
        "arrays",
        linked("x.npy", "/etc/hostname"),
        "x.npy: .*lies out",
    ),
    "npy is a circle": ("arrays", linked("x.npy", "x.npy"), "x.npy: .*symbolic links"),
    "npy leads nowhere": (
        "arrays",
        linked("x.npy", "y"),
        "x.npy: .*is missing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_line_and_nothing_is_written(case, raw_of, tmp_path, capsys):
    name, change, message, *options = REFUSED[case]
    raw, out = raw_of(name), tmp_path / "out"
    change(raw)
    if options:
        (raw / "train.csv").unlink()
    split = ["--split", "literature"] if "csv" in case or options else []
    before = everything(raw)
    run = ["prepare", name, "--raw", str(raw), "--out", str(out), "--workers", "1"]
    capsys.readouterr()
    assert main([*run, *split]) == 2
    said = capsys.readouterr().err.splitlines()
    lines = [line for line in said if not line.endswith(" examples")]
    assert len(lines) == 1, said
    with pytest.raises(ValueError, match=message):
        raise ValueError(lines[0])
    assert len(lines[0]) < 1000
    assert sorted(os.listdir(tmp_path)) == ["raw"]
    assert everything(raw) == before


# --- What is left out, each with its reason and the file that is at fault

WAV, FLV = "AudioWAV/1001_DFA_ANG_XX.wav", "VideoFlash/1001_DFA_ANG_XX.flv"
JPG = "flow/v/v_Archery_g01_c01/frame0.jpg"
AVI = "videos/Archery/v_Archery_g01_c01.avi"
PNG = "chair/train/chair_train0.obj.shaded_v000.png"
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{}\n#EXT-X-ENDLIST\n"


def sound(values, rate=16_000, kind="FLOAT"):
    return lambda raw: soundfile.write(raw / WAV, values, rate, subtype=kind)


def wav_rate(raw):
    """A head may tell of any rate."""
    data = bytearray((raw / WAV).read_bytes())
    data[24:28] = struct.pack("<I", 2**31 - 1)
    (raw / WAV).write_bytes(data)


def names_another(name, content):
    """What FFmpeg takes for a list of files, here of a clip that lies outside."""

    def change(raw):
        other = raw.parent / "outside.avi"
        write_video(other, seconds=0.6)
        (raw / name).write_text(content.format(other))

    return change


def at(name, value):
    def change(raw):
        array = np.load(raw / name)
        array[(0,) * array.ndim] = value
        np.save(raw / name, array)

    return change


def as_type(name, dtype):
    return lambda raw: np.save(raw / name, np.load(raw / name).astype(dtype))


def bomb(width):
    """Millions of pixels in some kilobytes."""
    return lambda raw: Image.new("1", (width, 2**13)).save(raw / PNG)


LEFT_OUT = {
    "wav of NaN": ("crema-d", WAV, sound(np.full(4000, np.nan)), "not finite"),
    "wav of inf": ("crema-d", WAV, sound(np.full(4000, np.inf)), "not finite"),
    "wav of 1e300": (
        "crema-d",
        WAV,
        sound(np.full(4000, 1e300), kind="DOUBLE"),
        "not finite",
    ),
    "wav of one sample": ("crema-d", WAV, sound([0.5]), None),
    "wav of a rate": ("crema-d", WAV, wav_rate, "2147483647 samples a second, the li"),
    "wav is empty": ("crema-d", WAV, text(WAV, b""), "Error"),
    "wav is text": ("crema-d", WAV, text(WAV, "no sound at all"), "Error"),
    "wav is a pipe": ("crema-d", WAV, pipe(WAV), "is no plain file"),
    "wav is a directory": (
        "crema-d",
        WAV,
        lambda raw: ((raw / WAV).unlink(), (raw / WAV).mkdir()),
        "Error",
    ),
    "wav is a device": ("crema-d", WAV, linked(WAV, "/dev/zero"), "lies outside of"),
    "wav leads nowhere": ("crema-d", WAV, linked(WAV, "nowhere"), "is missing"),
    "wav names a clip": ("crema-d", WAV, names_another(WAV, PLAYLIST), "Error"),
    "flv is text": ("crema-d", FLV, text(FLV, "no video"), "Error"),
    "flv is empty": ("crema-d", FLV, text(FLV, ""), "Error"),
    "flv is a sound": (
        "crema-d",
        FLV,
        lambda raw: shutil.copy(raw / WAV, raw / FLV),
        "no video track",
    ),
    "flv is a pipe": ("crema-d", FLV, pipe(FLV), "is no plain file"),
    "flv names a clip": ("crema-d", FLV, names_another(FLV, PLAYLIST), "Error"),
    "flv lists a clip": (
        "crema-d",
        FLV,
        lambda raw: (
            names_another(FLV, "ffconcat version 1.0\nfile 'other'\n")(raw),
            (raw / FLV).with_name("other").symlink_to(raw.parent / "outside.avi"),
        ),
        "Error",
    ),
    "avi names a clip": ("ucf-101", AVI, names_another(AVI, PLAYLIST), "Error"),
    "jpg is a link": ("ucf-101", JPG, linked(JPG, "/etc/hostname"), "lies outside of"),
    "jpg is a pipe": ("ucf-101", JPG, pipe(JPG), "is no plain file"),
    "jpg is text": ("ucf-101", JPG, text(JPG, "%!PS-Adobe-3.0 EPSF"), "Unidentified"),
    "png of 2**27 pixels": ("modelnet40", PNG, bomb(2**14), "16384 x 8192 pixels, the"),
    "png of 2**28 pixels": ("modelnet40", PNG, bomb(2**15), "exceeds limit of"),
    "png is a link": ("modelnet40", PNG, linked(PNG, "/etc/hostname"), "lies outside"),
    "depth of NaN": ("nyuv2", "train/depth/3.npy", np.nan, "not finite as float64"),
    "depth of 1e300": ("nyuv2", "train/depth/3.npy", 1e300, "not finite as float32"),
    "normal of 1e30": ("nyuv2", "train/normal/3.npy", 1e30, "not finite as float32"),
    "image of inf": ("nyuv2", "train/image/3.npy", np.inf, "not finite as float64"),
    "complex": ("nyuv2", "train/depth/3.npy", "c16", "complex128, not real numbers"),
    "strings": ("nyuv2", "train/label/3.npy", "U9", "<U9, not real numbers"),
    "objects": ("nyuv2", "train/label/3.npy", "O", "it holds Python objects"),
    "negative": (
        "nyuv2",
        "train/image/3.npy",
        npy("train/image/3.npy", "(-6, 8, 3)"),
        "its head tells of a negative size",
    ),
    "huge": (
        "nyuv2",
        "train/image/3.npy",
        npy("train/image/3.npy", f"({10**25}, 8, 3)"),
        "cut off: its head tells of",
    ),
    "npy is a pipe": (
        "nyuv2",
        "train/image/3.npy",
        pipe("train/image/3.npy"),
        "is no ",
    ),
    "npy is a device": (
        "nyuv2",
        "train/image/3.npy",
        linked("train/image/3.npy", "/dev/zero"),
        "lies outside of",
    ),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_one_is_left_out_with_its_reason_and_its_file(case, raw_of, tmp_path):
    name, file, change, reason = LEFT_OUT[case]
    raw, out = raw_of(name), tmp_path / "out"
    if isinstance(change, str):
        change = as_type(file, change)
    elif isinstance(change, float):
        change = at(file, change)
    whole = len(plan(name, raw).examples)
    change(raw)
    size = {} if name == "nyuv2" else {"size": 8}
    found = prepare(plan(name, raw, **size), out)
    if reason is None:
        assert found.index["left_out"] == 0
        return
    (problem,) = left_out(out).values()
    assert problem["file"] == str(raw / file)
    assert reason in problem["reason"]
    assert "\n" not in problem["reason"]
    assert sum(map(len, found.ids.values())) == whole - 1
    assert check_prepared(out) == []


@pytest.mark.parametrize(
    "case",
    [
        (
            _media,
            "SAMPLES",
            1000,
            "crema-d",
            "too long: more than the limit of 1000",
        ),
        (_media, "SECONDS", 0, "crema-d", "too long: more than the limit of 0 samples"),
        (_media, "FRAMES", 5, "crema-d", "too long: more than the limit of 5 frames"),
        (_media, "PIXELS", 99, "crema-d", "64 x 48 pixels, the limit is 99"),
        (_media, "PIXELS", 99, "modelnet40", "32 x 24 pixels, the limit is 99"),
        (
            _media,
            "SAMPLE_RATE",
            8000,
            "crema-d",
            "16000 samples a second, the lim",
        ),
        (
            _digit_images,
            "IDX_BYTES",
            99,
            "colored-digits",
            "bytes, more than the limit",
        ),
        (_engine, "EXAMPLES", 5, "crema-d", "8 examples, the limit is 5"),
        (_engine, "CLASSES", 5, "crema-d", "6 classes, the limit is 5"),
    ],
)
def test_a_limit_is_told_with_the_number(case, raw_of, tmp_path, monkeypatch):
    module, limit, value, name, reason = case
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(ValueError, match=reason):
        prepare(plan(name, raw_of(name)), tmp_path / "out")


def test_a_file_beyond_the_limit(raw_of, tmp_path):
    """An empty one, as the file system has it: nothing of it is read."""
    raw = raw_of("modelnet40")
    os.truncate(raw / PNG, 2**40)
    found = prepare(plan("modelnet40", raw, size=8), tmp_path / "out")
    assert found.index["left_out"] == 1
    (problem,) = left_out(tmp_path / "out").values()
    expected = f"{2**40} bytes, more than the limit of {_raw_files.FILE_BYTES}"
    assert problem["reason"] == expected


def test_one_cause_is_one_entry(raw_of, tmp_path):
    """And the message names it, where it is that of all."""
    raw = raw_of("nyuv2")
    for path in (raw / "val" / "depth").iterdir():
        path.write_bytes(b"no array " + path.name.encode())
    with pytest.raises(ValueError, match="no usable example in split 'test'") as error:
        prepare(plan("nyuv2", raw), tmp_path / "out")
    assert "7 left out, 7 of them as " in str(error.value)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [group["count"] for group in report["reasons"]] == [7]
    # Mended, the same command goes on.
    for path in (raw / "val" / "depth").iterdir():
        np.save(path, np.ones((6, 8, 1)))
    found = prepare(plan("nyuv2", raw), tmp_path / "out")
    assert found.index["left_out"] == 0


def test_many_reasons_are_bounded():
    problems = [Problem(str(i), "f", f"{chr(1000 + i)} is wrong") for i in range(5000)]
    groups = by_reason(problems)
    assert len(groups) == 101
    assert sum(group["count"] for group in groups) == 5000
    assert max(len(group["examples"]) for group in groups) == 10


# --- Where it is written


def test_a_directory_of_others_is_left_alone(raw_of, tmp_path, capsys):
    raw, out = raw_of("arrays"), tmp_path / "out"
    (out / "parts").mkdir(parents=True)
    (out / "parts" / "mine").write_text("of somebody")
    (out / "report.json").write_text("of somebody")
    before = everything(out)
    assert main(["prepare", "arrays", "--raw", str(raw), "--out", str(out)]) == 2
    assert "is not empty, and holds no data that are half" in capsys.readouterr().err
    assert everything(out) == before


@pytest.mark.parametrize("name", ["nyuv2", "arrays"])
def test_no_link_in_the_directory_is_followed(name, raw_of, tmp_path):
    raw, out, other = raw_of(name), tmp_path / "out", tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("of somebody")
    out.mkdir()
    (out / _engine.PARTS).symlink_to(other)
    with pytest.raises(ValueError, match="is not empty"):
        prepare(plan(name, raw), out)
    assert everything(other) == {other / "mine": b"of somebody"}
    (out / _engine.PARTS).unlink()
    (out / _engine.PARTS).mkdir()
    for file in ("index.json", "report.json", "train-label.npy", "train-depth.npy"):
        (out / file).symlink_to(other / "made")
    prepare(plan(name, raw), out)
    assert sorted(os.listdir(other)) == ["mine"]


def test_the_directory_itself_may_be_a_link(raw_of, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    (tmp_path / "given").symlink_to(raw_of("nyuv2"))
    found = prepare(plan("nyuv2", tmp_path / "given"), tmp_path / "out")
    assert found.index["left_out"] == 0
    assert (tmp_path / "disk" / "index.json").is_file()


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300, "\0"])
def test_where_nothing_can_be_written(place, raw_of, tmp_path, capsys):
    raw = raw_of("arrays")
    (tmp_path / "file").write_text("of somebody")
    out = str(tmp_path / place)
    assert main(["prepare", "arrays", "--raw", str(raw), "--out", out]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len([x for x in said if not x.endswith(" examples")]) == 1
    assert (tmp_path / "file").read_text() == "of somebody"
