"""Parts that go wrong in each way that a part can, to test the check."""

from __future__ import annotations

import os
import signal
import time

from gpu.report import Setting


def hang(setting: Setting) -> None:
    """Never end."""
    work(setting)
    time.sleep(1000)


def crash(setting: Setting) -> None:
    """Die as a broken kernel's process does."""
    work(setting)
    os.kill(os.getpid(), signal.SIGSEGV)


def fail(setting: Setting) -> None:
    """Raise."""
    work(setting)
    raise ValueError("on purpose")


def find(setting: Setting) -> None:
    """Find something wrong."""
    work(setting)
    setting.note("wrong", "bad", ok=False)


def work(setting: Setting) -> None:
    """Go well."""
    setting.note("noted", 1.0)
