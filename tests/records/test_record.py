"""The record: older schemas are read, newer ones refused, and nobody outside `benchmark/records` knows its keys."""

from __future__ import annotations

import ast
import json
from dataclasses import fields
from pathlib import Path

import pytest

from benchmark.records import Record, RecordError, record, view

REPO = Path(__file__).parents[2]


# --- versions ------------------------------------------------------------------------------------------------------


def in_names_of_schema_1(folder):
    """Rewrite a run's record as if schema 1 had called `class_names` otherwise, and return the bytes."""
    content = folder.plain_record()
    folder.write("record.json", {"classes": content.pop("class_names"), **content, "schema": 1})
    return (folder.path / "record.json").read_bytes()


def renamed(old, new):
    return lambda content: {new if key == old else key: value for key, value in content.items()}


@pytest.fixture
def schema(monkeypatch):
    """Return a function that gives the record another version and other migrations."""

    def change(version, **migrations):
        monkeypatch.setattr(record, "SCHEMA", version)
        monkeypatch.setattr(record, "MIGRATIONS", {int(name[1:]): migrate for name, migrate in migrations.items()})

    return change


def test_a_record_of_an_older_schema_is_read_as_one_of_todays_and_its_file_stays(made_up, schema):
    folder = made_up()
    wanted = folder.read_record()
    written = in_names_of_schema_1(folder)
    schema(2, v1=renamed("classes", "class_names"))
    assert view(folder).record == folder.read_record() == wanted
    assert wanted.class_names
    assert folder.is_done()
    assert (folder.path / "record.json").read_bytes() == written


def test_migrations_follow_each_other(made_up, schema):
    folder = made_up()
    wanted = folder.read_record()
    in_names_of_schema_1(folder)
    schema(3, v1=renamed("classes", "names"), v2=renamed("names", "class_names"))
    assert folder.read_record() == wanted


def test_a_record_written_today_needs_no_migration(made_up, schema):
    def fail(content):
        raise AssertionError(content)

    folder = made_up()
    schema(2, v1=lambda content: content)
    folder.write_record(folder.read_record())
    found = folder.read_record()
    assert json.loads((folder.path / "record.json").read_bytes())["schema"] == 2
    schema(2, v1=fail)
    assert folder.read_record() == found


def test_a_newer_record_is_refused_with_what_to_do(made_up, schema):
    folder = made_up()
    schema(2, v1=lambda content: content)
    folder.write("record.json", {**folder.plain_record(), "schema": 3})
    with pytest.raises(RecordError, match="expected schema 2 or older, got 3, made by a newer ModalBench; update it"):
        folder.read_record()
    assert "update it to read this run" in view(folder).problem


def test_a_record_that_no_migration_leads_from_is_refused(made_up, schema):
    folder = made_up()
    schema(3, v2=lambda content: content)
    with pytest.raises(RecordError, match="expected schema 3, got 1"):
        folder.read_record()


def test_there_is_a_migration_from_every_schema_before():
    assert set(record.MIGRATIONS) == set(range(1, record.SCHEMA))


# --- keys ----------------------------------------------------------------------------------------------------------

SHARED = {"id", "modalities", "seconds", "memory", "files"}
"""Fields of a record that are keys of other things too."""
KEYS = {one.name for one in fields(Record)} - SHARED


def keys_used(source):
    """Return the places that read a record by its keys: `line: expression`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript):
            owner, key = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, key = node.func.value, node.args[0] if node.args else None
            if node.func.attr == "plain_record" or (node.func.attr == "plain" and key is None):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
            if node.func.attr not in ("get", "pop", "setdefault"):
                continue
        else:
            continue
        text = isinstance(key, ast.Constant) and isinstance(key.value, str)
        name = getattr(owner, "attr", getattr(owner, "id", ""))
        if text and (key.value in KEYS or name == "record"):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_nobody_outside_records_reads_a_record_by_its_keys():
    files = [
        path for folder in ("benchmark", "reports", "methods", "datasets") for path in (REPO / folder).rglob("*.py")
    ]
    outside = [path for path in files if path.parent != REPO / "benchmark" / "records"]
    assert len(files) > len(outside) > 100
    used = {str(path.relative_to(REPO)): keys_used(path.read_text(encoding="utf-8")) for path in outside}
    assert {path: places for path, places in used.items() if places} == {}


@pytest.mark.parametrize(
    "planted",
    [
        'run.record["rules"]',
        'record["memory"]',
        'run.record.get("files", {})',
        'json.loads(text)["class_names"]',
        'content.get("num_samples")',
        "folder.plain_record()",
        "run.record.plain()",
    ],
)
def test_the_check_sees_what_it_must_see(planted):
    assert keys_used(f"def f(run):\n    return {planted}\n")[0].startswith("2: ")


@pytest.mark.parametrize(
    "sound", ['run.record.score("best_valid")', 'manifest["modalities"]', "record.rules[rule]", "head.plain(x)"]
)
def test_the_check_lets_through_what_it_must(sound):
    assert keys_used(sound) == []
