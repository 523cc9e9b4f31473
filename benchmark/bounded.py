"""Text from outside, read within bounds: files of any kind, YAML and JSON of any size and shape. Imports no torch."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 64 * 2**20
"""Most bytes of a file of text that is read whole: the longest history is a few."""
MAX_NODES = 100_000
"""Most values of a YAML file, those counted that its aliases repeat."""
MAX_DIGITS = 18
"""Most digits of a whole number: it fits 64 bits."""


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is another kind of file, such as a pipe, which might never end, or too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("expected a regular file")
        if found.st_size > most:
            raise ValueError(f"expected at most {most} bytes, got {found.st_size}")
        return stream.read(most)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: when it is malformed, nests deeper than Python does, or holds a number of too many digits.
    """
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_yaml(text: str, kind: Any = yaml.SafeLoader) -> Any:
    """Parse YAML.

    Args:
        text: the YAML.
        kind: a safe loader.

    Raises:
        ValueError: when it is malformed or holds what its tags do not mean, with the line where there is one; when it
            nests too deeply, contains itself, or grows beyond `MAX_NODES` values.
    """
    try:
        loader = kind(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if "*" in text:  # without aliases it is no larger than the text
                _check_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"a value that cannot be read ({error})") from None


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS + 1:
        raise ValueError(f"expected a whole number of at most {MAX_DIGITS} digits, got {len(digits)}")
    return int(digits)


def _check_size(root: yaml.Node) -> None:
    """Raise `ValueError` for a document that is too large once its aliases are written out, or endless."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MAX_NODES + 1  # inside itself
            parts = node.value if isinstance(node, yaml.CollectionNode) else ()
            sizes[id(node)] = 1 + sum(sum(map(size, part)) if isinstance(part, tuple) else size(part) for part in parts)
        return sizes[id(node)]

    if size(root) > MAX_NODES:
        raise ValueError(f"aliases that repeat more than {MAX_NODES} values, or contain themselves")
