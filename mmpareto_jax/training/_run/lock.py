"""One run at a time in a directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmpareto_jax._whole_files import naming
from mmpareto_jax.training._run.damaged import say
from mmpareto_jax.training._run.workdir import now

_BUSY = (errno.EAGAIN, errno.EACCES)
# Of file systems, as some of NFS and of FUSE, that have no locks.
_WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_held: set[int] = set()


def _close_in_child() -> None:
    """A process that was forked holds no lock: it may live longer than the run."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def locked(workdir: Path, name: str = "lock") -> Iterator[None]:
    """Nobody else writes to the directory meanwhile; it is made where there is none.

    The system holds the lock on the file `name`, which says whose it is, and lets go
    of it when the process ends, however it does; on NFS for other hosts, too. What this
    has made is gone afterwards, if nothing else lies in the directory.

    Raises:
      ValueError: another process, or another run of this one, writes to it.
    """
    made = [x for x in (workdir, *workdir.parents) if not os.path.exists(x)]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError:
        _remove([x for x in made if os.path.exists(x)])
        raise
    path = workdir / name
    with naming(path):
        descriptor = _taken(path)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # not in a process that was forked
            _let_go(path, descriptor)
            _remove(made)


def _remove(folders: Sequence[Path]) -> None:
    """The innermost first, up to one that is in use now."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _let_go(path: Path, descriptor: int) -> None:
    # Before it is free: whoever opens the file later finds another one.
    with contextlib.suppress(OSError):
        path.unlink()
    _held.discard(descriptor)
    os.close(descriptor)


def _taken(path: Path) -> int:
    """The descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, path.parent)
            if _is_at(path, descriptor):
                os.ftruncate(descriptor, 0)
                whose = f"process {os.getpid()} on {socket.gethostname()} since {now()}"
                os.write(descriptor, f"{whose}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner has just ended, and removed it


def _lock(descriptor: int, workdir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            whose = os.read(descriptor, 200).decode(errors="replace").strip()
            raise ValueError(
                f"workdir {workdir}: {whose or 'another process'} writes to it; wait "
                "until it has ended, or choose another --workdir"
            ) from None
        if error.errno not in _WITHOUT:
            raise
        say(
            f"workdir {workdir}: its file system has no locks ({error.strerror}): see "
            "to it that no other process trains there"
        )


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
