"""Which changes of the code no test notices: mutants, sampled by a seed, each tried in a process of its own.

    make mutants MUTANTS_OPTIONS="--areas statistics --to mutants.json"

`areas.toml` says which modules are mutated and which tests are asked about each. Cosmic Ray finds the sites and
makes the mutants; sites in annotations are left out, and each site gives one mutant of each kind of change, so that
`+`, which can become eleven other operators, does not outweigh a comparison. Nothing on disk is changed: a forked
process, which has torch already, imports the mutant in place of its module and runs the tests until one fails. Keep
the tree as it is meanwhile. `decisions.toml` names mutants that no test can notice, and why; they are left out of the
score.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType

import pytest

HERE = Path(__file__).parent
REPO = HERE.parents[1]
HEAVY = ["torch", "torchvision", "numpy", "pandas", "scipy.stats", "sklearn.metrics", "matplotlib.figure"]
HEAVY += ["pyarrow.parquet", "pydantic", "typer", "rich", "scikit_posthocs", "pytest", "xdist"]
"""What is imported once, before all forks."""
CORE = ["benchmark.cli", "benchmark.check", "benchmark.train.execute", "benchmark.reports"]
"""What is imported once before all forks for plugins, which nothing in it imports."""
PATIENCE = 4.0
"""A mutant that takes this many times as long as the tests do without it, and ten seconds more, is killed: it hangs."""
ALL_PASS, NOT_IMPORTED = 0, 99
LEFT = ("survived", "unreached")
"""What becomes of mutants that no test noticed."""


@dataclass(frozen=True)
class Module:
    """A file to mutate, with the tests that are asked about it."""

    area: str
    path: str
    tests: tuple[str, ...]
    only_functions: bool = False
    """Whether only functions outside classes are mutated."""
    skip: tuple[str, ...] = ()
    """Names of functions and classes that are left out."""

    @property
    def is_plugin(self) -> bool:
        return not self.path.startswith("benchmark/")

    @property
    def name(self) -> str:
        """As it is imported: the folders of plugins are packages inside `benchmark`."""
        name = self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return f"benchmark.{name}" if self.is_plugin else name


@dataclass(frozen=True)
class Mutant:
    """One change of one module, and what became of it."""

    area: str
    module: str
    place: str
    """Function or class that it is in; empty at the top level."""
    line: int
    change: str
    """Kind of change, as Cosmic Ray calls it."""
    before: str
    after: str
    """The line, stripped."""
    outcome: str = ""
    """`killed`, `hung`, `survived`, `equivalent`, or `unreached` when no test imported the module."""

    @property
    def change_of(self) -> tuple[str, ...]:
        """What it is known by in another run: other lines of the module may have moved it."""
        return self.module, self.change, self.before, self.after


def read_areas(path: Path = HERE / "areas.toml") -> list[Module]:
    """Return the modules of every area."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        Module(area, path, tuple(tests), about.get("only_functions", False), tuple(about.get("skip", ())))
        for area, about in content.items()
        for path, tests in about["modules"].items()
    ]


@dataclass(frozen=True)
class Decision:
    """Why no test can tell a mutant."""

    before: str
    after: str
    """The line, stripped; or what is replaced in a line of any module."""
    why: str
    module: str = ""
    """Its path; empty for what is so in any module."""

    def is_about(self, mutant: Mutant) -> bool:
        if self.module:
            return (self.module, self.before, self.after) == (mutant.module, mutant.before, mutant.after)
        return self.before in mutant.before and mutant.before.replace(self.before, self.after) == mutant.after


def read_decisions(path: Path = HERE / "decisions.toml") -> list[Decision]:
    """Return the decisions on mutants that no test can tell."""
    return [Decision(**one) for one in tomllib.loads(path.read_text(encoding="utf-8"))["equivalent"]]


class Places:
    """Which lines and columns of a module are mutated, and what they are part of."""

    def __init__(self, module: Module, source: str) -> None:
        self._module = module
        tree = ast.parse(source)
        self._tops = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        self._out = [node for node in tree.body if isinstance(node, ast.If)]  # imports for type checkers
        for node in ast.walk(tree):
            for field in ("annotation", "returns"):
                if found := getattr(node, field, None):
                    self._out.append(found)

    def top(self, line: int) -> ast.FunctionDef | ast.ClassDef | None:
        """Return what a line is part of at the top level."""
        for node in self._tops:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= line <= (node.end_lineno or 0):
                return node
        return None

    def wanted(self, position: tuple[int, int]) -> bool:
        """Return whether a (line, column) is mutated."""
        for node in self._out:
            start, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
            if start <= position < end:
                return False
        top = self.top(position[0])
        if top is None:
            return not self._module.only_functions
        if self._module.only_functions and isinstance(top, ast.ClassDef):
            return False
        return top.name not in self._module.skip


@dataclass(frozen=True)
class Site:
    """A place in a module that one kind of change changes, with the change that was drawn."""

    line: int
    operator: str
    """Cosmic Ray's name of the change."""
    occurrence: int
    """Which of the places of that operator it is."""


def sites_of(module: Module, source: str) -> list[Site]:
    """Return the sites of a module, each with one change of its kind, drawn by the module's seed."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    places, nodes = Places(module, source), list(ast_nodes(get_ast(source)))
    groups: dict[tuple[int, int, str], list[Site]] = {}
    for name in sorted(operator_names()):
        kind = get_operator(name)
        if kind.arguments() or name.endswith("NoOp"):
            continue
        starts = [start for node in nodes for start, _ in kind().mutation_positions(node)]
        for occurrence, (line, column) in enumerate(starts):
            if places.wanted((line, column)):
                family = name.partition("_")[0]
                groups.setdefault((line, column, family), []).append(Site(line, name, occurrence))
    generator = random.Random(f"{SEED} {module.path}")
    return [generator.choice(groups[place]) for place in sorted(groups)]


def make(module: Module, source: str, site: Site) -> tuple[Mutant, str] | None:
    """Return the mutant of a site, and the module's source with it; None where Cosmic Ray fails, as at `except a.B`."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    try:
        mutated = mutate_code(source, get_operator(site.operator)(), site.occurrence)
    except AttributeError:
        return None
    if mutated is None:
        return None
    lines, changed = source.splitlines(), mutated.splitlines()
    at = next((n for n, (a, b) in enumerate(zip(lines, changed, strict=False)) if a != b), site.line - 1)
    top = Places(module, source).top(site.line)
    change = site.operator.removeprefix("core/")
    before, after = lines[at].strip(), changed[at].strip()
    return Mutant(module.area, module.path, top.name if top else "", at + 1, change, before, after), mutated


SEED = 0


class MutantLoader(SourceFileLoader):
    """Imports a module from a text that is not in its file."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source, self.used = source, False

    def get_code(self, fullname: str) -> CodeType:
        self.used = True
        return compile(self._source, self.path, "exec", dont_inherit=True)


class MutantFinder:
    """Finds one module only, first of all finders."""

    def __init__(self, loader: MutantLoader) -> None:
        self.loader = loader

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return (
            spec_from_file_location(fullname, self.loader.path, loader=self.loader)
            if fullname == self.loader.name
            else None
        )


class QuickFirst:
    """Orders tests by how long they take, and notes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self._new: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._new[report.nodeid] = self._new.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        if not self._seconds:
            self._path.write_text(json.dumps(self._new))


def ask(module: Module, source: str, limit: float, seconds: Path) -> int | None:
    """Run the tests of a module on other source in a fork; return pytest's code, None where time was up."""
    temporary = tempfile.mkdtemp(prefix="mutant-")
    child = os.fork()
    if not child:
        code = 3
        try:
            code = _tests(module, source, temporary, seconds)
        finally:
            os._exit(code)
    end = time.monotonic() + limit
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _tests(module: Module, source: str, temporary: str, seconds: Path) -> int:
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    loader = MutantLoader(module.name, str(REPO / module.path), source)
    sys.meta_path.insert(0, MutantFinder(loader))
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--basetemp", temporary]
    code = int(pytest.main([*options, *module.tests], plugins=[QuickFirst(seconds)]))
    return code if code or loader.used else NOT_IMPORTED


def outcome_of(code: int | None) -> str:
    """Return what the code of a run of tests says of a mutant."""
    return {None: "hung", ALL_PASS: "survived", NOT_IMPORTED: "unreached"}.get(code, "killed")


def try_module(
    module: Module, most: int, decisions: Sequence[Decision], before: Sequence[Mutant] = ()
) -> Iterator[Mutant]:
    """Try a sample of a module's mutants; or those that survived `before`, and yield the others as they were."""
    alive = {one.change_of for one in before if one.outcome in LEFT}
    yield from (one for one in before if one.outcome not in LEFT)
    if before and not alive:
        return
    source = (REPO / module.path).read_text(encoding="utf-8")
    seconds, started = Path(tempfile.mkdtemp(prefix="mutant-")) / "seconds.json", time.monotonic()
    code = ask(module, source, 600.0, seconds)
    usual = time.monotonic() - started
    if code != ALL_PASS:
        raise SystemExit(f"{module.path}: without a mutant its tests end with {code}: {' '.join(module.tests)}")
    sites = sites_of(module, source)
    sample = random.Random(f"{SEED} {module.path}").sample(range(len(sites)), min(most, len(sites)))
    tried = [made for number in sorted(sample) if (made := make(module, source, sites[number]))]
    if before:
        tried = [(mutant, mutated) for mutant, mutated in tried if mutant.change_of in alive]
    say(f"{module.path}: {len(sites)} sites, {len(tried)} tried, tests take {usual:.1f} s")
    for mutant, mutated in tried:
        equal = any(decision.is_about(mutant) for decision in decisions)
        outcome = "equivalent" if equal else outcome_of(ask(module, mutated, PATIENCE * usual + 10, seconds))
        mutant = replace(mutant, outcome=outcome)  # noqa: PLW2901
        if outcome in LEFT:
            say(
                f"  {outcome} {mutant.place}:{mutant.line} {mutant.change}\n    - {mutant.before}\n    + {mutant.after}"
            )
        yield mutant


def table(mutants: Sequence[Mutant]) -> str:
    """Return a row for each module and area: tried, equivalent, killed, score."""
    lines = ["| area | module | tried | equivalent | killed | survived | score |", "|---|---|---|---|---|---|---|"]
    for area in dict.fromkeys(one.area for one in mutants):
        inside = [one for one in mutants if one.area == area]
        for module in [*dict.fromkeys(one.module for one in inside), ""]:
            own = [one for one in inside if module in ("", one.module)]
            killed = sum(one.outcome in ("killed", "hung") for one in own)
            equal = sum(one.outcome == "equivalent" for one in own)
            left = len(own) - equal
            score = f"{100 * killed / left:.0f} %" if left else "—"
            named = f"`{module}`" if module else "**all**"
            lines.append(f"| {area} | {named} | {len(own)} | {equal} | {killed} | {left - killed} | {score} |")
    return "\n".join(lines)


def warm(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--areas", help="names of areas, with commas; all by default")
    parser.add_argument("--only", default="", help="part of the path of the modules that are tried")
    parser.add_argument("--most", type=int, default=40, help="mutants tried of each module")
    parser.add_argument(
        "--again", type=Path, help="file of an earlier run with the same --most: only what survived it is tried"
    )
    parser.add_argument("--to", type=Path, help="file for every mutant and what became of it, JSON")
    chosen = parser.parse_args()
    os.chdir(REPO)
    warm(HEAVY)
    importlib.import_module("torch").set_num_threads(1)
    decisions, tried = read_decisions(), []
    earlier = [Mutant(**one) for one in json.loads(chosen.again.read_text())] if chosen.again else []
    for module in sorted(read_areas(), key=lambda module: module.is_plugin):
        if (not chosen.areas or module.area in chosen.areas.split(",")) and chosen.only in module.path:
            if module.is_plugin:
                warm(CORE)
            assert module.name not in sys.modules, "its mutants would not be imported"
            before = [one for one in earlier if one.module == module.path]
            if chosen.again and not before:
                continue
            tried += try_module(module, chosen.most, decisions, before)
            if chosen.to:
                chosen.to.write_text(json.dumps([asdict(one) for one in tried], indent=1), encoding="utf-8")
    say(table(tried))


if __name__ == "__main__":
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONSAFEPATH": "1",
    }
    main()
