"""`bench list`: what there is, without importing any of it; one plugin in detail."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli.options import Json
from benchmark.cli.terminal import console as open_console
from benchmark.errors import Problem, UserError, nearest

if TYPE_CHECKING:
    from benchmark.registry import Plugin


def list_(
    name: Annotated[str | None, typer.Argument(help="A method, data set, protocol or report, to see more.")] = None,
    as_json: Json = False,
) -> None:
    """List methods, data sets, protocols and reports, or the settings of one."""
    from benchmark.protocol import protocol_names
    from benchmark.registry import DATASETS, METHODS, REPORTS

    kinds = {"methods": METHODS, "datasets": DATASETS, "reports": REPORTS}
    if name is not None:
        found = [kind.known()[name] for kind in kinds.values() if name in kind.known()]
        if not found and name in protocol_names():
            _protocol(name, as_json)
            return
        if not found and not name.endswith(".py"):
            raise UserError(
                Problem(
                    "bench list",
                    "a method, data set, protocol or report",
                    repr(name),
                    nearest(name, [*protocol_names(), *(known for kind in kinds.values() for known in kind.known())]),
                )
            )
        _detail(found[0] if found else METHODS.find(name), as_json)
        return
    listed: dict[str, dict[str, str]] = {
        title: {known: plugin.about for known, plugin in sorted(kind.known().items())} for title, kind in kinds.items()
    }
    listed["protocols"] = _protocols()
    if as_json:
        sys.stdout.write(json.dumps(listed, indent=1) + "\n")
        return
    console = open_console()
    for title, entries in listed.items():
        console.print(f"[bold]{title}[/]", soft_wrap=True)
        for known, about in entries.items():
            console.print(f"  {escape(known):12} {escape(about)}", soft_wrap=True)


def _protocols() -> dict[str, str]:
    from benchmark.protocol import load_protocol, protocol_names

    return {name: load_protocol(name).about.split(". ")[0] for name in protocol_names()}


def _protocol(name: str, as_json: bool) -> None:
    """Print what a protocol says, as its file has it."""
    import yaml

    from benchmark.protocol import load_protocol

    content = load_protocol(name).model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(content, indent=1) if as_json else yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    sys.stdout.write(text.rstrip("\n") + "\n")


def _detail(plugin: Plugin, as_json: bool) -> None:
    kind = plugin.load()
    fields: dict[str, Any] = {
        key: {
            "type": str(getattr(field.annotation, "__name__", field.annotation)),
            "default": "required" if field.is_required() else field.get_default(call_default_factory=True),
            "about": " ".join((field.description or "").split()),
        }
        for key, field in (kind.Config.model_fields.items() if hasattr(kind, "Config") else ())
    }
    trust = _trust(plugin)
    if as_json:
        found = {"name": plugin.name, "about": plugin.about, "settings": fields, **({"ledger": trust} if trust else {})}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    console = open_console()
    console.print(f"[bold]{escape(plugin.name)}[/]  {escape(plugin.about)}\n{escape(plugin.source)}", soft_wrap=True)
    for what, text in trust.items():
        console.print(f"{what}: {escape(text)}", soft_wrap=True)
    for key, field in fields.items():
        console.print(f"  [cyan]{key}[/] = {escape(str(field['default']))}  {escape(field['about'])}", soft_wrap=True)


def _trust(plugin: Plugin) -> dict[str, str]:
    """Return how far a method can be trusted; nothing for a data set."""
    from benchmark.registry import METHODS
    from benchmark.tables.ledger import rows

    if plugin.kind is not METHODS:
        return {}
    (row,) = rows([plugin])
    return {"code": row.code, "paper": row.known, "tests": row.tests}
