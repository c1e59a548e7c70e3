"""End a command in one line after Ctrl-C (SIGINT) or SIGTERM, or when nothing reads its output."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(KeyboardInterrupt):
    """
    The user, or the system, asked the command to stop.

    Args:
        number (`int`): The number of the signal.
        progress (`str`, *optional*): Where the command stopped, such as "at step 44".
    """

    def __init__(self, number: int, progress: str = ""):
        super().__init__(number)
        self.number = number
        self.progress = progress


@contextmanager
def end_on_signal(command: str, consequence: str = "the same command goes on") -> Iterator[None]:
    """
    End the process in one line, with the status 128 + number of the signal, if it is asked to stop.

    It also ends, without a line, if the program behind a pipe has read enough: `crosstask-ask ... | head`.

    Args:
        command (`str`): The name of the command.
        consequence (`str`, *optional*): What the user can do then.
    """
    with handle_signals(_request_stop):
        try:
            yield
        except KeyboardInterrupt as error:
            number = getattr(error, "number", signal.SIGINT)
            progress = getattr(error, "progress", "")
            print(f"\n{command}: stopped{f' {progress}' if progress else ''}; {consequence}", file=sys.stderr)
            sys.stdout.flush()
            sys.exit(128 + number)
        except BrokenPipeError:
            if not _is_output_closed():  # the connection of something else
                raise
            # Python flushes the output once more at its end, and would print an error then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)


def _is_output_closed() -> bool:
    # The write that failed has emptied its buffer, so that another one would not fail.
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # no file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _request_stop(number: int, frame: FrameType | None) -> None:
    raise StopRequested(number)


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handler` handle SIGINT and SIGTERM; only the main thread of a process can set handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
