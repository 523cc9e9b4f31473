"""What README promises is typed out of README and tried."""

from __future__ import annotations

import re

import pytest

from benchmark.check import check_plugin
from benchmark.registry import DATASETS, METHODS


@pytest.fixture(scope="module")
def readme(repo):
    return (repo / "README.md").read_text(encoding="utf-8")


@pytest.mark.full
def test_the_example_method_is_short_and_keeps_the_contract(readme, tmp_path):
    source = re.search(r"```python\n(.*?)```", readme.partition("## Add a method")[2], re.S).group(1)
    assert source.count("\n") < 40
    path = tmp_path / "entropy.py"
    path.write_text(source, encoding="utf-8")
    results = list(check_plugin(str(path)))
    assert len(results) > 10
    assert not [result for result in results if result.failed]


def test_every_method_and_data_set_is_listed(readme):
    for kind in (METHODS, DATASETS):
        missing = [name for name in kind.known() if f"| `{name}` |" not in readme]
        assert not missing


def test_every_folder_and_file_named_exists(readme, repo):
    named = re.findall(r"`((?:benchmark|methods|datasets|reports|experiments|tests|docs)/[\w./]*)`", readme)
    named += re.findall(r"\((docs/[\w.]+)\)", readme)
    assert len(named) > 5
    assert not [name for name in named if not (repo / name).exists()]


@pytest.mark.full
def test_every_command_and_option_named_exists(readme, bench):
    known = (
        "run|ablate|status|wait|cancel|retry|logs|evaluate|report|"
        "serve|sync|ledger|list|check|data check|data prepare|data unpack|cluster check"
    )
    commands = sorted(set(re.findall(rf"\bbench ({known})\b", readme)))
    helps = {command: bench(*command.split(), "--help").said for command in commands}
    options = set(re.findall(r"(--[a-z][a-z-]+)", readme))
    assert not [option for option in options if not any(option in text for text in helps.values())]
