"""Signals that end a command: at once, between two steps, and never within an import."""

import importlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trtforge.interrupts import Stopped, interrupts_between, stop_on_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Install the handlers of the command line for one test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS[1:]:
        signal.signal(number, signal.SIG_DFL)
    stop_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_is_an_interrupt_that_knows_its_number(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        signal.raise_signal(number)
    assert isinstance(stopped.value, Stopped)
    assert stopped.value.number is number


def test_the_signal_beside_the_first_does_not_end_the_cleaning_up() -> None:
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(Stopped):  # who does not want to wait for it may still say so
        signal.raise_signal(signal.SIGINT)


def test_what_the_caller_ignores_stays_ignored() -> None:
    """So nohup works."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_on_signals()
    signal.raise_signal(signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_between_two_steps_the_first_waits(number: signal.Signals) -> None:
    steps: list[str] = []
    with pytest.raises(Stopped) as stopped, interrupts_between() as interrupted:  # noqa: PT012
        assert not interrupted()
        signal.raise_signal(number)
        steps.append("went on")
        assert interrupted()
        if number is signal.SIGINT:
            signal.raise_signal(number)
        else:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
            raise KeyboardInterrupt
        steps.append("never")
    assert stopped.value.number is number
    assert steps == ["went on"]
    with interrupts_between():  # afterwards nothing is held back
        pass


def test_without_the_handlers_of_the_command_line_it_stays_pythons_own() -> None:
    """Which ends a program by the signal, where nobody catches it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt) as stopped, interrupts_between():
        signal.raise_signal(signal.SIGINT)
    assert type(stopped.value) is KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_handlers_are_left_alone() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    with interrupts_between() as interrupted:
        signal.raise_signal(signal.SIGTERM)
        assert not interrupted()
    assert seen == [signal.SIGTERM]


def test_an_import_is_not_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception would go through C++ there, which aborts the process."""
    (tmp_path / "slow_to_import.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(0.2)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found: list[bool] = []
    with pytest.raises(Stopped) as stopped:  # noqa: PT012
        found.append(importlib.import_module("slow_to_import").whole)
        time.sleep(5)
    assert found == [True]
    assert stopped.value.number is signal.SIGTERM


def test_an_impatient_user_interrupts_no_import_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "import_under_fire.py").write_text(
        "import signal, time\n"
        "for _ in range(20):\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    time.sleep(0.02)\n"
        "whole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("trtforge.interrupts._LONGEST_IMPORT_S", 20)
    found: list[bool] = []
    with pytest.raises(Stopped):  # noqa: PT012
        found.append(importlib.import_module("import_under_fire").whole)
        time.sleep(5)
    assert found == [True]
    time.sleep(0.3)  # no timer raises while things are put in order


def test_an_import_that_does_not_end_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "endless_import.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(30)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("trtforge.interrupts._LONGEST_IMPORT_S", 0.15)
    started = time.monotonic()
    with pytest.raises(Stopped):
        importlib.import_module("endless_import")
    assert time.monotonic() - started < 10
