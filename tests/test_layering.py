"""Who may know whom, read from the imports of every file; and what may not be loaded at run time."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PLUGINS = ("methods", "datasets", "reports")


def module_of(path: Path) -> str:
    """Return the import name of a file: plugin folders live under `benchmark`."""
    parts = list(path.relative_to(REPO).with_suffix("").parts)
    parts = ["benchmark", *parts] if parts[0] in PLUGINS else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_of(path): path
    for folder in ("benchmark", *PLUGINS)
    for path in sorted((REPO / folder).rglob("*.py"))
}  # fmt: skip
CORE = {name: path for name, path in FILES.items() if not name.startswith(tuple(f"benchmark.{p}" for p in PLUGINS))}


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@cache
def imports_of(module: str, lazy: bool = True, typing: bool = True) -> frozenset[str]:
    """Return the modules that a file imports.

    Args:
        module: the import name of the file.
        lazy: count imports inside functions.
        typing: count imports under `if TYPE_CHECKING`.
    """
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if FILES[module].stem == "__init__" else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            submodules = {f"{base}.{alias.name}" for alias in node.names} & set(FILES)
            found.update(submodules or {base})
        for child in ast.iter_child_nodes(node):
            deferred = isinstance(node, ast.FunctionDef) and not lazy
            unseen = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing
            if not (deferred or unseen):
                visit(child)

    visit(parsed(module))
    return frozenset(found)


def told(modules: Iterable[str], wrong: Callable[[str], Iterable[object]]) -> dict[str, list[object]]:
    """Return what is wrong with each module that has anything wrong, so that a test tells every failure at once."""
    found = {module: sorted(wrong(module), key=str) for module in modules}
    return {module: what for module, what in found.items() if what}


def ours(module: str) -> set[str]:
    return {name for name in imports_of(module) if name.split(".")[0] == "benchmark"} - {"benchmark"}


def beyond(module: str, own: str | tuple[str, ...]) -> set[str]:
    """Return our modules that a file imports, without those whose names begin with `own`."""
    return {name for name in ours(module) if not name.startswith(own)}


def plugins(package: str) -> list[str]:
    return [name for name in FILES if name.startswith(f"benchmark.{package}.")]


def core(*names: str) -> set[str]:
    return {f"benchmark.{name}" for name in names}


def test_methods_know_the_contract_and_neither_the_machinery_nor_each_other():
    def wrong(module):
        known = {name for name in ours(module) if not name.startswith("benchmark.methods._")}  # shared maths, no method
        return known - allowed

    allowed = core("data", "errors", "method", "model", "seeds", "settings", "training")
    assert not told(plugins("methods"), wrong)


def test_data_sets_know_data_and_never_methods_or_training():
    allowed = core("cache", "data", "errors", "model", "seeds", "settings")
    own = ("benchmark.datasets", "benchmark.encoders.", "benchmark.inputs.")
    assert not told(plugins("datasets"), lambda module: beyond(module, own) - allowed)


def test_building_blocks_of_data_sets_know_neither_plugins_nor_training():
    allowed = core("cache", "data", "errors", "loading", "model", "records", "seeds", "settings")
    own = ("benchmark.encoders", "benchmark.inputs")
    blocks = [name for name in FILES if name.startswith(own)]
    assert not told(blocks, lambda module: beyond(module, own) - allowed)


TRAINING = {"torch", "torchvision", "torchaudio", "wandb"}


def test_reports_know_records_and_never_training():
    allowed = core("errors", "metrics", "processes", "records", "report", "rules", "tables.table")
    assert not told(
        plugins("reports"), lambda module: beyond(module, "benchmark.reports") - allowed | imports_of(module) & TRAINING
    )


def test_pages_know_records_and_never_training():
    pages = [name for name in CORE if name.startswith("benchmark.site")]
    allowed = core("errors", "metrics", "protocol", "records", "report", "reproduce", "rules", "tables.table")
    assert not told(pages, lambda module: beyond(module, "benchmark.site") - allowed | imports_of(module) & TRAINING)


def test_only_the_mirrors_know_tracking_tools_and_they_know_records_and_no_training():
    def wrong(module):
        if module.startswith("benchmark.track"):
            return beyond(module, "benchmark.track") - allowed
        return {name for name in imports_of(module) if name.split(".")[0] in ("wandb", "tensorboard")}

    allowed = core("errors", "metrics", "records", "rules", "settings")
    assert not told(FILES, wrong)


def test_the_core_imports_no_plugin():
    assert not told(CORE, lambda module: [name for name in ours(module) if name.startswith(tuple(core(*PLUGINS)))])


def test_the_core_has_an_order_and_no_cycle():
    graph = {module: {name for name in imports_of(module, typing=False) if name in CORE} - {module} for module in CORE}
    graph = {module: {name for name in known if name != "benchmark"} for module, known in graph.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert len(order) == len(CORE)


ORDER = (
    "errors",
    "settings",
    "model",
    "data",
    "method",
    "train.evaluation",
    "train.trainer",
    "train.execute",
    "launch.launcher",
    "cli",
)


def test_lower_layers_never_reach_higher_ones():
    def wrong(low):
        reached, stack = set(), [low]
        while stack:
            module = stack.pop()
            if module not in reached:
                reached.add(module)
                stack += [name for name in imports_of(module, typing=False) if name in CORE]
        return reached & set(layers[layers.index(low) + 1 :])

    layers = [f"benchmark.{name}" for name in ORDER]
    assert set(layers) <= set(CORE)
    assert not told(layers, wrong)


WORDS = {"unimodal", "sum", "weight", "channel"}
"""Names of methods that are also words of the contract, of Python or of torch, and mean no method in the core."""


def test_the_core_names_no_method_and_no_data_set():
    names = {path.stem for folder in ("methods", "datasets") for path in (REPO / folder).glob("[!_]*.py")}
    assert {"concat", "ogm"} <= names
    assert not told(CORE, lambda module: words_of(module) & names - WORDS)


def words_of(module: str) -> set[str]:
    """Return the names and the strings of a file, docstrings apart."""
    found = set()
    for node in ast.walk(without_docs(ast.parse(CORE[module].read_text(encoding="utf-8")))):
        words = [getattr(node, key, None) for key in ("id", "name", "attr", "arg")]
        words += [node.value] if isinstance(node, ast.Constant) else []
        if isinstance(node, ast.Import | ast.ImportFrom):
            words += [part for alias in node.names for part in alias.name.split(".")]
        found |= {word for word in words if isinstance(word, str)}
    return found


def test_the_command_line_and_the_api_name_no_report():
    words = {"missing", "protocols"}  # mean other things there
    names = {path.stem for path in (REPO / "reports").glob("[!_]*.py")} - words
    assert {"comparison", "ablation"} <= names
    outer = [name for name in CORE if name.startswith(("benchmark.cli", "benchmark.api"))]

    def found(module):
        tree = without_docs(ast.parse(CORE[module].read_text(encoding="utf-8")))
        return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} & names

    assert not told(outer, found)


def test_the_command_line_knows_one_engine_only_to_prove_its_profile():
    users = {name for name in CORE if name.startswith("benchmark.cli") and "slurm" in str(ours(name))}
    assert users == {"benchmark.cli.cluster_command"}


def without_docs(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [
                item for item in body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
            ]
    return tree


def test_nothing_prints_behind_the_consoles_back():
    def wrong(module):
        calls = (node for node in ast.walk(parsed(module)) if isinstance(node, ast.Call))
        return [call.lineno for call in calls if ast.unparse(call.func) == "print"]

    assert not told(FILES, wrong)


RECORDS_SIDE = [
    "benchmark.metrics",
    "benchmark.rules",
    "benchmark.records",
    "benchmark.report",
    "benchmark.tables.table",
    "benchmark.settings",
    "benchmark.cli",
]
RECORDS_SIDE += [name for name in CORE if name.startswith("benchmark.site")]


def test_reading_records_loads_no_torch(loaded_by):
    modules = [*RECORDS_SIDE, *plugins("reports")]
    assert not loaded_by(modules, {"torch"}, ("numpy", "pandas", "pydantic", "scipy.stats", "rich.table", "pyarrow"))


def test_the_command_line_launchers_and_jobs_load_what_they_need_only_when_they_do(loaded_by):
    modules = ["benchmark.cli", "benchmark.launch.executors", "benchmark.slurm.task", "benchmark.track.mirroring"]
    assert not loaded_by(modules, {"torch", "submitit", "wandb"}, ("pydantic", "rich.table"))


def test_the_import_tests_can_fail(loaded_by):
    assert loaded_by(["benchmark.training"], {"torch"}, ()) == {"benchmark.training": ["torch"]}
    with pytest.raises(AssertionError, match=r"No module named 'benchmark\.nowhere'"):
        loaded_by(["benchmark.nowhere", "benchmark.errors"], {"torch"}, ())
    assert told(["benchmark.cli"], imports_of)


def test_the_import_reader_sees_what_it_must_see():
    assert "benchmark.cli.run_command" in imports_of("benchmark.cli")
    assert "benchmark.plan.spec" in imports_of("benchmark.cli.run_command")
    assert "benchmark.plan.spec" not in imports_of("benchmark.cli.run_command", lazy=False, typing=False)
    assert "benchmark.records" in imports_of("benchmark.report")


ROOMS = {
    "plan": {"records"},
    "train": {"plan", "records"},
    "launch": {"plan", "records", "track", "train"},
    "records": set(),
    "tables": set(),
    "robustness": {"plan", "records", "train"},
    "check": {"plan", "train"},
    "slurm": {"launch", "plan", "records", "train"},
    "site": {"records", "tables"},
    "track": {"records"},
    "encoders": set(),
    "inputs": {"encoders", "records"},
    "api": {"launch", "plan", "records", "tables", "train"},
}
"""Which rooms of the core each room may know, beside the contract; the command line knows all of them."""


def test_a_room_knows_only_the_rooms_below_it():
    def wrong(room):
        members = [name for name in CORE if name == f"benchmark.{room}" or name.startswith(f"benchmark.{room}.")]
        known = {other.split(".")[1] for name in members for other in ours(name)} - {room}
        return known & {*ROOMS, "cli"} - ROOMS[room]

    assert not told(ROOMS, wrong)


PAGE = (REPO / "docs" / "pages" / "architecture.md").read_text(encoding="utf-8")


def test_the_architecture_page_draws_these_rooms_and_these_rules():
    rows = re.findall(r"^\| `benchmark/(\w+)/` \|.*\|([^|]*)\|$", PAGE, re.M)
    drawn = {room: set(filter(None, known.strip().split(", "))) for room, known in rows}
    assert drawn == {**ROOMS, "cli": {"all"}}


def test_the_architecture_page_names_only_what_is_there_and_the_whole_contract():
    folders = ("benchmark", *PLUGINS, "experiments", "tests")
    named = set(re.findall(rf"`((?:{'|'.join(folders)})/[\w./]*)`", PAGE))
    rooms = {f"benchmark/{room}/" for room in ROOMS}
    assert sorted(name for name in named - rooms if not (REPO / name).exists()) == []
    contract = {f"benchmark/{path.name}" for path in (REPO / "benchmark").glob("[!_]*.py")}
    assert sorted(contract - named) == []


def test_every_folder_of_the_core_is_a_room():
    folders = {path.parent.name for path in (REPO / "benchmark").glob("*/__init__.py")} | {"records"}
    assert folders - {"cli", "protocols"} == set(ROOMS)


def test_no_two_files_share_a_name_for_two_things():
    reports = {path.stem for path in (REPO / "reports").glob("[!_]*.py")}
    stems = [name.rpartition(".")[2] for name in FILES if not FILES[name].stem.startswith("_")]
    assert sorted({stem for stem in stems if stems.count(stem) > 1} - {"__init__"}) == []
    assert reports  # they are among FILES
