"""SIGTERM and Ctrl-C: counted, whenever they come, and never in the way of the thread that waits for them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ptbr_slm.stop_signals import Interrupted, StopSignals

AT_EVERY_LINE = """
import signal, sys
from ptbr_slm.stop_signals import StopSignals

def waits_with_a_signal_at(wanted):
    lines = 0
    def trace(frame, event, arg):
        nonlocal lines
        if event == "line":
            if lines == wanted:
                signal.raise_signal(signal.SIGTERM)
            lines += 1
        return trace
    with StopSignals() as signals:
        sys.settrace(trace)
        signals.wait(0.01)
        sys.settrace(None)
        assert signals.count == (lines > wanted)
        return lines > wanted

lines = 0
while waits_with_a_signal_at(lines):
    lines += 1
print(lines)
"""
"""Waits with a signal before its first line, then before its second, and so on through the library's too."""


def test_a_signal_at_any_line_of_the_waiting_is_counted_and_blocks_nothing():
    done = subprocess.run(
        [sys.executable, "-c", AT_EVERY_LINE], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) >= 2


def test_a_signal_ends_the_wait():
    with StopSignals() as signals:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        begun = time.monotonic()
        signals.wait(60)
        assert time.monotonic() - begun < 30
        timer.join()
    assert (signals.count, signals.first) == (1, signal.SIGINT)


def test_a_signal_that_came_before_ends_the_wait_too():
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        begun = time.monotonic()
        signals.wait(60)
        assert time.monotonic() - begun < 30
    assert (signals.count, signals.first) == (2, signal.SIGTERM)


def test_where_it_may_interrupt_it_does_and_the_former_handlers_return():
    former = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        with pytest.raises(Interrupted), signals.interrupting():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted), signals.interrupting():
            pass  # one that came before interrupts at once
    assert signal.getsignal(signal.SIGTERM) is former


def test_outside_the_main_thread_nothing_is_caught():
    former = signal.getsignal(signal.SIGTERM)
    seen = []

    def inside():
        with StopSignals() as signals:
            seen.append(signal.getsignal(signal.SIGTERM))
            signals.wait(0.01)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join(30)
    assert seen == [former]
