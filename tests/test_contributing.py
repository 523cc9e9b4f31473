"""What contributors and citing papers rely on: forms that parse, hooks and CI that run our own tools, one version."""

from __future__ import annotations

import os
import re
import shlex
from datetime import date

import pytest
import yaml

import benchmark


@pytest.fixture(scope="module")
def read(repo):
    return lambda name: (repo / name).read_text(encoding="utf-8")


def test_one_version_is_cited_released_and_installed(read):
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["version"] == benchmark.__version__
    released = re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", read("CHANGELOG.md"), re.M)
    assert (released or [("0.1.0", "")])[0][0] == benchmark.__version__
    if released:
        assert cited["date-released"] == date.fromisoformat(released[0][1])


def test_the_citation_has_what_its_format_demands(read):
    cited = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert all(author.get("name") or author.get("family-names") for author in cited["authors"])
    assert cited["license"] in read("setup.cfg")


def test_sections_of_the_changelog_are_those_of_its_form(read):
    text = read("CHANGELOG.md")
    sections = set(re.findall(r"^### (.+)$", text, re.M))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    deprecated = re.findall(r"^### Deprecated\n((?:[^#].*\n|\n)*)", text, re.M)
    for line in "".join(deprecated).split("\n- ")[1:]:
        assert re.search(r"Goes in \d+\.\d+\.\d+\.", line), line


def test_ci_calls_the_script_that_anyone_can_call(read, repo):
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    (job,) = workflow["jobs"].values()
    assert os.access(repo / ".ci/run", os.X_OK)
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == ".ci/run"
    assert not [step for step in job["steps"] if "upload" in step.get("uses", "")]
    oldest = re.search(r"python_requires = >=([\d.]+)", read("setup.cfg"))
    assert oldest
    assert oldest[1] in job["strategy"]["matrix"]["python"]


def test_hooks_run_the_pinned_tools(read):
    (local,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert local["repo"] == "local"
    tools = {shlex.split(hook["entry"])[0].removeprefix(".venv/bin/") for hook in local["hooks"]}
    assert tools == {"ruff", "mypy"}
    assert not [tool for tool in tools if not re.search(rf"^{tool}==", read("constraints.txt"), re.M)]
    assert {hook["language"] for hook in local["hooks"]} == {"system"}


FORMS = ("bug", "method-request", "wrong-number")


@pytest.mark.parametrize("form", FORMS)
def test_issue_forms_have_what_they_need_to_be_shown(read, form):
    content = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{form}.yml"))
    assert content["name"]
    assert content["description"]
    asked = [field["id"] for field in content["body"]]
    assert len(asked) == len(set(asked))
    for field in content["body"]:
        assert field["type"] in {"textarea", "input", "dropdown"}
        assert field["attributes"]["label"]
        assert all(isinstance(option, str) for option in field["attributes"].get("options", ["one"]))


def test_everything_that_the_guide_names_exists(read, repo):
    text = read("CONTRIBUTING.md")
    linked = re.findall(r"\]\(((?!https?:)[^)#]+)\)", text)
    folders = r"`((?:benchmark|methods|datasets|reports|experiments|tests|docs|\.ci)/[\w./]*)`"
    named = [name for name in re.findall(folders, text) if "NAME" not in name]
    assert linked
    assert named
    assert not [name for name in linked + named if not (repo / name).exists()]
    groups = set(re.findall(r"`(modalbench\.\w+)`", text))
    known = read("README.md") + read("setup.cfg") + read("benchmark/launch/executors.py")
    assert not [group for group in groups if group not in known]
