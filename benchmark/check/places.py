"""Where in a plugin's own file something is wrong."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from benchmark.errors import line_in

NodeT = TypeVar("NodeT", bound=ast.AST)


@dataclass(frozen=True)
class Places:
    """Finds lines of a plugin's file; each is given as `file:line`, or as an empty string where there is none."""

    kind: type

    @cached_property
    def file(self) -> str:
        """The path of the file."""
        return inspect.getsourcefile(self.kind) or ""

    def line(self, number: int) -> str:
        """Return a line of the file as it is shown: relative to the current folder where it lies below it."""
        path = Path(self.file)
        here = Path.cwd()
        return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{number}"

    def of_error(self, error: BaseException) -> str:
        """Return the innermost line of the file that an exception, or what it was raised from, passed through."""
        number = line_in(error, self.file)
        return "" if number is None else self.line(number)

    def of_method(self, *names: str) -> str:
        """Return the first of these methods that the file defines; else the class."""
        for name in names:
            for cls in self._own_classes:
                code = getattr(getattr(vars(cls).get(name), "fget", vars(cls).get(name)), "__code__", None)
                if code is not None and code.co_filename == self.file:
                    return self.line(code.co_firstlineno)
        return self._line_of(node.lineno for node in self._nodes(ast.ClassDef) if node.name == self.kind.__name__)

    def of_attribute(self, name: str) -> str:
        """Return where `self.NAME` is first assigned or registered as a buffer, parameter or module."""
        return self._line_of(
            node.lineno
            for node in ast.walk(self._tree)
            if (isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Store))
            or (isinstance(node, ast.Call) and any(ast.unparse(arg) == repr(name) for arg in node.args[:1]))
        )

    def of_name(self, name: str) -> str:
        """Return where a name is first assigned, such as a setting."""
        return self._line_of(
            node.lineno for node in self._nodes(ast.Name) if node.id == name and isinstance(node.ctx, ast.Store)
        )

    def of_call(self, *prefixes: str) -> str:
        """Return the first call of a function whose dotted name begins with one of these."""
        calls = self._nodes(ast.Call)
        return self._line_of(node.lineno for node in calls if ast.unparse(node.func).startswith(prefixes))

    def _line_of(self, numbers: Iterator[int]) -> str:
        first = min(numbers, default=None)
        return "" if first is None else self.line(first)

    def _nodes(self, kind: type[NodeT]) -> Iterator[NodeT]:
        return (node for node in ast.walk(self._tree) if isinstance(node, kind))

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(Path(self.file).read_text(encoding="utf-8")) if self.file else ast.Module([], [])

    @cached_property
    def _own_classes(self) -> list[type]:
        return [cls for cls in self.kind.__mro__ if cls.__module__ == self.kind.__module__]
