"""Pages of the docs site that come from the code itself: methods, data sets, ledger, commands."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from benchmark.cli import app
from benchmark.registry import DATASETS, METHODS, Kind, Plugin
from benchmark.tables.ledger import rows, to_markdown

WIDE = "---\nhide: [navigation, toc]\n---\n\n"
"""In front of a page that needs the room beside it."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    methods = [METHODS.find(name) for name in sorted(METHODS.known())]
    pages = {
        "methods": "# Methods\n\n" + "\n".join(map(method_section, methods)),
        "ledger": f"{WIDE}# Ledger\n\nWhat each paper says, what the released code does, what we do.\n\n"
        + _ledger(methods),
        "datasets": "# Data sets\n\n" + "\n".join(map(section, _every(DATASETS))),
        "commands": _commands(),
    }
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def section(plugin: Plugin) -> str:
    """Return a plugin's heading, first line and settings."""
    return f"## {plugin.name}\n\n{plugin.about}\n\n{_settings(plugin.load())}\n"


def method_section(plugin: Plugin) -> str:
    """Return a method's section, with where it comes from and what it can be switched to."""
    kind = plugin.load()
    reference = kind.reference
    source = ", ".join(filter(None, [reference.title, reference.venue, str(reference.year or "")]))
    lines = [f"*{source}.*" + (f" Official code: `{reference.code}`." if reference.code else "")]
    if kind.off_switches:
        lines.append("Off: " + "; ".join(f"`{dict(off.config)}` equals `{off.equals}`" for off in kind.off_switches))
    if kind.presets:
        lines.append("Presets: " + "; ".join(f"{name} `{dict(values)}`" for name, values in kind.presets.items()))
    head, _, rest = section(plugin).partition(f"{plugin.about}\n\n")
    return "\n\n".join([f"{head}{plugin.about}", *lines, rest])


def _settings(kind: type[Any]) -> str:
    fields = kind.Config.model_fields
    if not fields:
        return "No settings.\n"
    lines = ["| setting | default | meaning, unit, source |", "|---|---|---|"]
    for key, field in fields.items():
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)}`"
        about = " ".join((field.description or "").split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {default} | {about} |")
    return "\n".join(lines) + "\n"


def _every(kind: Kind) -> list[Plugin]:
    return [kind.find(name) for name in sorted(kind.known())]


def _ledger(methods: list[Plugin]) -> str:
    """Return the ledger as a table whose long words may be broken, so that it fits the page."""
    return to_markdown([replace(row, tests=re.sub(r"(?<=[/_:])(?=\w)", "<wbr>", row.tests)) for row in rows(methods)])


def _commands() -> str:
    command = typer.main.get_command(app)
    text: str = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="bench"), name="bench")
    return text.replace("# `bench`", "# Commands", 1)
