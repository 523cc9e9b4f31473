"""What surrounds a process and must not decide how it ends: its user, home, terminal, temporary and current folder."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import util
from pathlib import Path

MAX_TEMPORARY = 60
"""Characters of a temporary folder where a socket's path fits: the kernel takes 107, multiprocessing adds some 35."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def settle() -> None:
    """Give this process, and those it starts, what libraries take for granted.

    A user without an entry in the system's list (containers started by number) gets a name, and a home where there is
    none; what cannot be shown on a terminal is replaced; figures are drawn without a screen, whatever a notebook set.
    """
    if not _is_named():
        os.environ["LOGNAME"] = f"user{os.getuid()}"
    if not _has_home():
        os.environ["HOME"] = tempfile.mkdtemp(prefix="modalbench-home-")
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")


def _is_named() -> bool:
    import pwd

    if any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):  # those that getpass asks
        return True
    try:
        return bool(pwd.getpwuid(os.getuid()))
    except KeyError:
        return False


def _has_home() -> bool:
    try:
        return bool(Path.home())
    except RuntimeError:
        return False


@contextmanager
def safe_start() -> Iterator[None]:
    """Let the process that others fork from start whatever the temporary and the current folder are.

    Its socket needs a short path, and modules in the user's folder (`random.py`) must not stand in for the library's.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        _shorten_sockets()
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _shorten_sockets() -> None:
    """Have multiprocessing choose its temporary folder now, in a place with a short name; it keeps the first one."""
    usual = tempfile.gettempdir()
    short = next((place for place in SHORT_FOLDERS if os.access(place, os.W_OK | os.X_OK)), usual)
    if len(usual) > MAX_TEMPORARY:
        tempfile.tempdir = short
        try:
            util.get_temp_dir()
        finally:
            tempfile.tempdir = usual
