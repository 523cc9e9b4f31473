"""Plugins by name: from the package's folders, an entry-point group, or a path. Imported only when used."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmark.errors import Problem, UserError, line_in, nearest

DESCRIPTIONS = frozenset(
    {"about", "ablations", "ledger", "modalities", "off_switches", "presets", "reference", "variants"}
)
"""Class attributes that describe a plugin and change no number that it computes."""


@dataclass(frozen=True)
class Plugin:
    """A plugin that is known but perhaps not imported yet."""

    kind: Kind
    name: str
    source: str
    """Module name, or the path of a file outside the package."""
    attribute: str = ""
    """Class name; empty to take the only plugin class that the module defines."""

    @cached_property
    def about(self) -> str:
        """The first line of the module's docstring, read without importing it."""
        try:
            path = Path(self.source) if self.is_file else self.kind.folder / f"{self.name}.py"
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        except (OSError, SyntaxError):
            return ""
        return (docstring or "").split("\n")[0]

    @property
    def is_file(self) -> bool:
        return self.source.endswith(".py")

    def load(self) -> type[Any]:
        """Import the plugin and return its class.

        Raises:
            UserError: when the module cannot be imported or does not define one plugin class.
        """
        where = f"{self.kind.singular} {self.name}"
        try:
            module = _import_file(Path(self.source)) if self.is_file else importlib.import_module(self.source)
        except (Exception, SystemExit) as error:
            number = line_in(error, self.source)
            place = self.source if number is None else f"{self.source}:{number}"
            got = f"{type(error).__name__}: {error}"
            raise UserError(Problem(where, "a module that imports", got, f"Fix {place}.")) from error
        declared = [
            value
            for name, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, self.kind.base)
            and value.__module__ == module.__name__
            and self.attribute in ("", name)
        ]
        found = [value for value in declared if not inspect.isabstract(value)]
        if declared and not found:
            raise Incomplete(*(_incomplete(where, value) for value in declared))
        if len(found) != 1:
            names = ", ".join(sorted(cls.__name__ for cls in found)) or "none"
            raise UserError(
                Problem(
                    where,
                    f"one class derived from {self.kind.base_class}"
                    + f" called {self.attribute}" * bool(self.attribute),
                    names,
                    f"Name one: {self.source}:ClassName." if found else f"Define it in {self.source}.",
                )
            )
        return found[0]

    def version(self, loaded: type[Any], parts: Iterable[str] = ()) -> int:
        """Return the version of a loaded plugin's numbers; it also rises with that of each plugin of its `parts`."""
        own: int = loaded.version
        raised: int = sum(self.kind.find(name).load().version - 1 for name in parts)
        return own + raised

    def code(self, loaded: type[Any], parts: Iterable[str] = ()) -> str:
        """Return a digest of that code of a loaded plugin, and of its `parts`, which is outside the package.

        Covers its module, those of the classes it derives from, and what they import from beside them. Empty where all
        is in the package, whose plugins have versions.
        """
        plugins = [loaded, *(self.kind.find(name).load() for name in parts)]
        classes = [cls for plugin in plugins for cls in plugin.__mro__[: plugin.__mro__.index(self.kind.base)]]
        modules = [module for module in dict.fromkeys(cls.__module__ for cls in classes) if not _is_ours(module)]
        for module in modules:  # grows on the way
            modules += [name for name in sorted(_beside(module)) if name not in modules]
        return code_digest(*modules) if modules else ""


@dataclass(frozen=True)
class Kind:
    """A kind of plugin and where plugins of this kind are found."""

    package: str
    singular: str
    base_module: str
    base_class: str

    @property
    def base(self) -> type[Any]:
        """The class that plugins of this kind derive from; imports it."""
        found: type[Any] = getattr(importlib.import_module(self.base_module), self.base_class)
        return found

    @property
    def group(self) -> str:
        """The entry-point group through which other distributions add plugins."""
        return f"modalbench.{self.package.rpartition('.')[2]}"

    @property
    def folder(self) -> Path:
        """The folder of the package, found without importing any plugin."""
        spec = importlib.util.find_spec(self.package)
        assert spec is not None
        assert spec.submodule_search_locations
        return Path(next(iter(spec.submodule_search_locations)))

    def known(self) -> dict[str, Plugin]:
        """Return the plugins known by name; the package's own come first and cannot be replaced."""
        installed = {entry.name: self._from_entry(entry) for entry in entry_points(group=self.group)}
        own = {
            path.stem: Plugin(self, path.stem, f"{self.package}.{path.stem}")
            for path in sorted(self.folder.glob("*.py"))
            if not path.stem.startswith("_")
        }
        return {**installed, **own}

    def find(self, name: str) -> Plugin:
        """Return the plugin of that name or path (`./mine.py` or `./mine.py:Mine`).

        Raises:
            UserError: when there is none, with the nearest name.
        """
        source, _, attribute = name.rpartition(":")  # a folder's name may have a colon too
        if not source.endswith(".py"):
            source, attribute = name, ""
        if source.endswith(".py"):
            path = Path(source).resolve()
            if not path.is_file():
                raise UserError(Problem(f"{self.singular} {name}", "a Python file", "no such file"))
            return Plugin(self, path.stem, str(path), attribute)
        known = self.known()
        if name not in known:
            raise UserError(
                Problem(
                    f"{self.singular} {name!r}",
                    f"a known {self.singular} or a path to a .py file",
                    "neither",
                    nearest(name, known),
                )
            )
        return known[name]

    def _from_entry(self, entry: EntryPoint) -> Plugin:
        return Plugin(self, entry.name, entry.module, entry.attr)


METHODS = Kind("benchmark.methods", "method", "benchmark.method", "Method")
DATASETS = Kind("benchmark.datasets", "data set", "benchmark.data", "Dataset")
REPORTS = Kind("benchmark.reports", "report", "benchmark.report", "Report")


def report_after(command: str) -> Plugin:
    """Return the report whose tables a command shows when it is done; the folder of reports says which."""
    return REPORTS.find(importlib.import_module(REPORTS.package).SHOWN_AFTER[command])


class Incomplete(UserError):
    """A module defines a plugin class that does not implement all it must."""


def _incomplete(where: str, declared: type[Any]) -> Problem:
    lacking = ", ".join(sorted(declared.__abstractmethods__))
    file, line = inspect.getsourcefile(declared), inspect.getsourcelines(declared)[1]
    base = next(cls.__name__ for cls in declared.__mro__ if "__abstractmethods__" in vars(cls) and cls is not declared)
    advice = f"Implement {lacking} as in {base}; a name that is spelt otherwise does not count."
    return Problem(f"{where}, {file}:{line}", f"{declared.__name__} to implement {lacking}", "no such method", advice)


def _import_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"modalbench_plugin_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def code_digest(*modules: str) -> str:
    """Return a digest of what modules do: comments, docstrings, layout and `DESCRIPTIONS` do not count."""
    return _digest(map(_tree, modules))


def file_digest(path: Path) -> str:
    """Return a digest of what a Python file does, as of `code_digest`, without importing it.

    Raises:
        OSError, SyntaxError, ValueError: when it cannot be read or is not Python.
    """
    return _digest([ast.parse(path.read_bytes())])


def _digest(trees: Iterable[ast.Module]) -> str:
    digest = hashlib.sha256()
    for tree in trees:
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                described = isinstance(node, ast.ClassDef)
                node.body = [  # type: ignore[attr-defined]
                    item for item in body if not (_is_docstring(item) or (described and _describes(item)))
                ]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:12]


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "benchmark"


def _beside(module: str) -> set[str]:
    """Return the modules that one outside the package imports from beside it, inside functions too.

    Beside a module of a package is its whole top-level package; beside a single file, what is in its folder.
    """
    loaded = sys.modules[module]
    package, found = module.rpartition(".")[0], set()
    for node in ast.walk(_tree(module)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            up = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, [up, node.module]))
            names = [base, *(f"{base}.{name}" for name in names)]
        found |= {name for name in names if _is_beside(name, module, loaded.__file__) and _is_module(name)}
    return found


def _is_beside(name: str, module: str, file: str | None) -> bool:
    top = name.partition(".")[0]
    if "." in module:
        return top == module.partition(".")[0]
    folder = Path(file or "").parent
    places = (folder / f"{top}.py", folder / top / "__init__.py")
    spec = importlib.util.find_spec(top) if top and not _is_ours(top) else None
    return spec is not None and spec.origin is not None and Path(spec.origin) in places


def _tree(module: str) -> ast.Module:
    try:
        return ast.parse(inspect.getsource(importlib.import_module(module)))
    except OSError:  # empty, or not written in Python
        return ast.Module([], [])


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # something inside a module
        return False


def _describes(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id in DESCRIPTIONS for target in targets)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
