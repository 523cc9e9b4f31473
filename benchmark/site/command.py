"""The command line that started a run."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from benchmark.records import dig


def typed(env: Any) -> str:
    """Return the command line that started a run, as noted in env.json."""
    words = dig(env, "argv")
    if not isinstance(words, list) or not words:
        return ""
    return " ".join(quote(str(word)) for word in (Path(str(words[0])).name, *words[1:]))
