"""A file that is written is there whole, or stays what it was."""

import errno
import os
import resource
import signal

import pytest

from mmpareto_jax._whole_files import whole_file, write_whole


@pytest.fixture
def small_files():
    """No file may grow beyond a kilobyte: the nearest to a full disk without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_text_is_written_in_utf_8(tmp_path):
    write_whole(tmp_path / "a", "γ\n")
    assert (tmp_path / "a").read_bytes() == "γ\n".encode()
    assert os.listdir(tmp_path) == ["a"]


def test_where_writing_fails_the_old_file_stays_and_nothing_lies_beside_it(
    tmp_path, small_files
):
    path = tmp_path / "a"
    write_whole(path, "old")
    with pytest.raises(OSError, match="File too large") as failed:
        write_whole(path, "x" * 2000)
    assert failed.value.filename == str(path)
    assert failed.value.errno == errno.EFBIG
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_of_what_writes_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    write_whole(path, "old")
    with pytest.raises(TypeError), whole_file(path) as file:
        file.write("no bytes")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_directory_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "none" / "a"
    with pytest.raises(FileNotFoundError) as failed:
        write_whole(path, "x")
    assert failed.value.filename == str(path)


def test_a_link_is_not_followed_to_another_file(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    (tmp_path / "a").symlink_to(outside)
    write_whole(tmp_path / "a", "ours")
    assert outside.read_text() == "theirs"
