"""A command that is asked to stop ends in one line."""

import os
import signal
import threading

import pytest

from crosstask.utils.interrupts import StopRequested, end_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_in_one_line(capsys, number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as error, end_on_signal("crosstask-x"):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was lost")
    assert error.value.code == 128 + number
    assert capsys.readouterr().err == "\ncrosstask-x: stopped; the same command goes on\n"
    assert signal.getsignal(number) is before


def test_progress_and_consequence_are_said(capsys):
    with pytest.raises(SystemExit), end_on_signal("crosstask-x", "nothing was lost"):
        raise StopRequested(signal.SIGINT, "at step 3")
    assert capsys.readouterr().err == "\ncrosstask-x: stopped at step 3; nothing was lost\n"


def test_other_threads_run_without_handlers():
    results = []

    def run():
        with end_on_signal("crosstask-x"):
            results.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results == [1]


def test_a_broken_connection_of_something_else_is_an_error():
    with pytest.raises(BrokenPipeError), end_on_signal("crosstask-x"):
        raise BrokenPipeError
