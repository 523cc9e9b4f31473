"""Plugins are found by name or path, imported only when used, and fail with words a user can act on."""

from __future__ import annotations

import importlib
import json
import linecache
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from benchmark import registry
from benchmark.errors import UserError
from benchmark.registry import DATASETS, METHODS, REPORTS

METHOD = """
from benchmark.method import Method, Reference
from benchmark.model import concat_net

class Mine(Method):
    reference = Reference("test")

    def build_net(self, task):
        return concat_net(task)
"""
TWO = METHOD + "\nclass Other(Mine):\n    pass\n"

# --- what is imported ----------------------------------------------------------------------------------------------

SPY = """
import json, sys
sys.argv = ["bench", *sys.argv[1:]]
from benchmark.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
print()
print(json.dumps([code or 0, sorted(sys.modules)]))
"""


def modules_after(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SPY, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return set(modules)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["run", "--help"], ["status", "--help"], ["list", "--json"]]
)
def test_listing_and_help_import_neither_torch_nor_any_plugin(arguments):
    modules = modules_after(*arguments)
    assert not modules & {"torch", "pandas", "sklearn", "matplotlib", "numpy"}
    plugins = ("benchmark.methods", "benchmark.datasets", "benchmark.reports")
    assert not [name for name in modules if name.startswith(tuple(f"{package}." for package in plugins))]


def test_status_imports_no_torch(tmp_path):
    assert "torch" not in modules_after("status", "--out", str(tmp_path))


def test_the_list_names_every_plugin_of_the_folders_with_its_first_line(bench, repo):
    listed = bench("list", "--json").json
    for title in ("methods", "datasets", "reports"):
        files = {path.stem for path in (repo / title).glob("[!_]*.py") if path.stem != "__init__"}
        assert set(listed[title]) == files
        assert all(listed[title].values()), "every plugin says in a line what it is"


# --- finding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [METHODS, DATASETS, REPORTS], ids=lambda kind: kind.singular)
def test_every_known_plugin_loads_as_one_class_of_its_kind(kind):
    assert kind.known()
    for name, plugin in kind.known().items():
        assert plugin.name == name
        assert any(base.__name__ == kind.base_class for base in plugin.load().__mro__)


def test_a_path_finds_the_only_class_and_a_name_picks_one_of_two(plugin, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plugin("mine", METHOD)
    assert METHODS.find("./mine.py").load().__name__ == "Mine"
    path = plugin("two", TWO)
    assert METHODS.find(f"{path}:Other").load().__name__ == "Other"
    assert METHODS.find(f"{path}:Mine").load().__name__ == "Mine"


def test_two_classes_in_one_file_ask_for_a_name(plugin):
    path = plugin("two", TWO)
    with pytest.raises(UserError, match=r"Mine, Other.*two\.py:ClassName"):
        METHODS.find(path).load()


def test_a_class_that_is_not_there_is_told(plugin):
    with pytest.raises(UserError, match="called Nobody, got none"):
        METHODS.find(plugin("mine", METHOD) + ":Nobody").load()


def test_a_file_without_a_plugin_is_told(plugin):
    with pytest.raises(UserError, match="one class derived from Method, got none"):
        METHODS.find(plugin("empty", "from benchmark.method import Method\n")).load()


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(UserError, match=r"nowhere\.py.*no such file"):
        METHODS.find("./nowhere.py")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def (:", "SyntaxError"),
        ("import sys; sys.exit(1)", "SystemExit"),
    ],
)
def test_a_module_that_does_not_import_is_told_with_the_cause_and_can_be_mended(plugin, source, cause):
    path = plugin("broken", source)
    with pytest.raises(UserError, match=cause):
        METHODS.find(path).load()
    plugin("broken", METHOD + "# mended\n")
    assert METHODS.find(path).load().__name__ == "Mine"


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UserError, match=r"Did you mean 'concat'.*Available:"):
        METHODS.find("concta")


def test_two_files_of_one_name_are_two_plugins(tmp_path):
    loaded = []
    for folder in ("one", "other"):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(METHOD.replace("Mine", folder.title()))
        loaded.append(METHODS.find(str(path)).load().__name__)
    assert loaded == ["One", "Other"]


def test_other_distributions_add_plugins_and_cannot_replace_ours(monkeypatch):
    entries = [
        EntryPoint(name, "benchmark.methods.concat:Concat", "modalbench.methods") for name in ("theirs", "late_sum")
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == "modalbench.methods" else [])
    assert METHODS.find("theirs").load().__name__ == "Concat"
    assert METHODS.find("late_sum").load().__name__ == "LateSum"
    assert "theirs" not in DATASETS.known()


# --- versions and digests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [METHODS, DATASETS], ids=lambda kind: kind.singular)
def test_plugins_of_the_package_have_a_version_and_no_digest(kind):
    for plugin in kind.known().values():
        loaded = plugin.load()
        assert plugin.version(loaded) >= 1
        assert plugin.code(loaded) == ""


def test_a_version_rises_with_that_of_each_part(monkeypatch):
    plugin, part = METHODS.find("concat"), METHODS.find("pmr").load()
    both, one = (plugin.version(plugin.load(), parts) for parts in (("ogm", "pmr"), ("ogm",)))
    monkeypatch.setattr(part, "version", part.version + 2)
    assert plugin.version(plugin.load(), ("ogm", "pmr")) == both + 2
    assert plugin.version(plugin.load(), ("ogm",)) == one


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("    reference", "    presets = {'blobs': {}}\n    ablations = ({},)\n    reference", True),
        ("class Mine", "# a comment\nclass Mine", True),
        ("    reference", "    held_out_share = 0.5\n    reference", False),
        ("return concat_net(task)", "net = concat_net(task)\n        return net", False),
    ],
)
def test_a_file_outside_the_package_has_a_digest_of_what_its_code_does(plugin, old, new, same):
    plugins = [METHODS.find(plugin(name, text)) for name, text in {"a": METHOD, "b": METHOD.replace(old, new)}.items()]
    codes = [found.code(found.load()) for found in plugins]
    assert all(codes)
    assert (codes[0] == codes[1]) is same


def test_a_digest_covers_what_a_file_imports_from_beside_it_and_nothing_of_the_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    codes = []
    for number, constant in enumerate((1, 2)):
        (tmp_path / "helper_of_mine.py").write_text(f"FACTOR = {constant}\n")
        path = tmp_path / f"mine{number}.py"
        path.write_text("from helper_of_mine import FACTOR\n" + METHOD)
        monkeypatch.delitem(sys.modules, "helper_of_mine", raising=False)
        linecache.clearcache()
        importlib.invalidate_caches()
        found = METHODS.find(str(path))
        codes.append(found.code(found.load()))
    assert codes[0] != codes[1]


def test_a_digest_covers_a_whole_distribution_that_a_plugin_comes_from(tmp_path, monkeypatch):
    package = tmp_path / "their_methods"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text("FACTOR = 1\n")
    (package / "mine.py").write_text("from .nets import FACTOR\nfrom . import nets\n" + METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("theirs", "their_methods.mine:Mine", "modalbench.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    found = METHODS.find("theirs")
    assert found.code(found.load())
    monkeypatch.setattr(registry, "code_digest", lambda *modules: modules)
    assert found.code(found.load()) == ("their_methods.mine", "their_methods", "their_methods.nets")


def test_the_code_of_a_plugin_made_of_one_outside_the_package_covers_that(plugin, monkeypatch):
    outside = METHODS.find(plugin("mine", METHOD))
    ours = METHODS.find("concat")
    monkeypatch.setattr(type(METHODS), "known", lambda _: {"mine": outside, "concat": ours})
    assert ours.code(ours.load(), ("concat",)) == ""
    assert ours.code(ours.load(), ("mine",)) == outside.code(outside.load()) != ""
