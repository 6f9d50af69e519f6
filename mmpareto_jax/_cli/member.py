"""One of several processes: how it begins, and how it ends, whatever happens.

What the coordination of jax finds wrong ends a process at once, in its own words, and
out of Python's reach. So a member computes in a child, and its parent says in a
sentence how that ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from mmpareto_jax.training._run.signals import ending_signals

# The exit code where the run has lost a process.
LOST = 3
# Of a child: the descriptor of the parent's standard error.
_CHILD = "MMPARETO_MEMBER"
# Seconds after which a silent process counts as dead. One whose connection closes does
# at once.
_SILENCE = 30
# Seconds after which it is said that a process waits for the others.
_PATIENCE = 10
_COORDINATION = re.compile(rb"[WEF]\d{4} .*(coordination|distributed|preemption)")
_CHATTER = re.compile(rb"\[Gloo\]|peer ranks")
_CONNECTION = re.compile(
    "gloo|nccl|connection|socket|coordination|barrier|unavailable|heartbeat|peer",
    re.IGNORECASE,
)


def is_child() -> bool:
    """Whether this process computes, and another one watches."""
    return _CHILD in os.environ


def watch(argv: Sequence[str]) -> int:
    """Runs the command in a child, and says how it ended if it could not.

    Args:
      argv: the command's arguments.

    Returns:
      The exit code: the child's, or 3 where the run has lost a process.
    """
    errors = os.dup(2)
    child = subprocess.Popen(
        [sys.executable, "-m", "mmpareto_jax", *argv],
        env=os.environ | {_CHILD: str(errors)},
        stdin=subprocess.PIPE,  # closed when this process ends, however it does
        stderr=subprocess.PIPE,
        pass_fds=(errors,),
        start_new_session=True,  # so that Ctrl-C reaches it once, from here
    )
    for number in ending_signals():
        signal.signal(number, lambda number, _: child.send_signal(number))
    lost = _pass_on(child.stderr)
    code = child.wait()
    if code == LOST or (code == -signal.SIGABRT and lost):
        _say(
            "another process of this run has ended, or cannot be reached; start all of "
            "them again with --resume, or without where there is no checkpoint yet"
        )
        return LOST
    if code < 0:
        name = signal.Signals(-code).name
        _say(f"ended by {name}; start all processes again with --resume")
        return 128 - code
    return code


def _pass_on(stream: Any) -> bool:
    """Shows what the libraries say, up to the coordination's last words, if any."""
    lost = False
    for line in stream:
        lost = lost or bool(_COORDINATION.match(line))
        if line.strip() and not (lost or _CHATTER.search(line)):
            with contextlib.suppress(OSError):  # of a terminal that has gone
                os.write(2, line)
    return lost


def join(coordinator: str | None, number: int | None, own: int | None) -> None:
    """Meets the other processes; without arguments jax finds them by itself.

    Raises:
      ValueError: they do not meet.
    """
    import jax

    # Signals are ours: all processes end after the same step.
    jax.config.update("jax_enable_preemption_service", False)
    waits = threading.Timer(
        _PATIENCE, _say, [f"waiting for {coordinator or 'the other processes'}"]
    )
    waits.daemon = True
    waits.start()
    try:
        jax.distributed.initialize(
            coordinator, number, own, heartbeat_timeout_seconds=_SILENCE
        )
    except (RuntimeError, ValueError) as error:
        flag = "--coordinator" if coordinator else "--distributed auto"
        reason = str(error).splitlines()[0]
        raise ValueError(f"{flag}: the processes did not meet: {reason}") from None
    finally:
        waits.cancel()


def compute(command: Callable[[], int], tell: Callable[[BaseException], int]) -> int:
    """What a child does: the command, and an end that keeps no other process waiting.

    Where all processes end alike, they part. Where only this one fails it goes at once,
    by which the others know.

    Args:
      command: returns the exit code.
      tell: says what was raised, and returns the exit code for it.
    """
    _speak_through_the_parent()
    import jax

    from mmpareto_jax._cli.answers import USAGE_ERROR
    from mmpareto_jax.training._run.processes import CommonError, is_first

    try:
        code = command()
    except CommonError as error:
        if is_first():
            _say(str(error))
        code = USAGE_ERROR
    except TimeoutError:  # of a barrier: another one did not come
        _go(LOST)
    except jax.errors.JaxRuntimeError as error:
        if _CONNECTION.search(str(error)):
            _go(LOST)
        _go(tell(error))
    except KeyboardInterrupt:
        _go(128 + signal.SIGINT)
    except BaseException as error:
        _go(tell(error))
    jax.distributed.shutdown()
    return code


def _speak_through_the_parent() -> None:
    """Python speaks for itself, libraries through a pipe; none outlives the parent."""
    errors, output = int(os.environ[_CHILD]), os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(output, "w")
    sys.stderr = os.fdopen(errors, "w", buffering=1)

    def end_with_the_parent() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=end_with_the_parent, daemon=True).start()


def _say(sentence: str) -> None:
    print(f"mmpareto: {sentence}", file=sys.stderr, flush=True)


def _go(code: int) -> NoReturn:
    """Without the barriers at a process's end, where others would be waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
