"""The commands that make runs again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from benchmark.errors import UserError
from benchmark.protocol import Protocol, load_protocol, protocol_names
from benchmark.records import RunView, dig

OPTIONS = {"epochs": "--epochs", "batch_size": "--batch-size", "precision": "--precision"}
"""Fields of the recipe that have an option of their own."""


def reproduce(spec: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the command that plans exactly this run, and a remark where it depends on something of the user's.

    Everything that a data set, a protocol or the command line may have changed is spelled out, so that the command
    depends on no default but the protocol's.

    Args:
        spec: the content of spec.yaml.

    Returns:
        The words that belong on each line, quoted for a shell: empty for a damaged spec.
    """
    if not all(isinstance(spec.get(part), Mapping) for part in ("method", "dataset", "recipe")):
        return [], ""
    name = str(spec["protocol"])
    protocol, remark = load_protocol(name) if name in protocol_names() else None, ""
    if protocol is None:
        name += ".yaml"
        remark = f"The protocol was read from a file: put its path in the place of {name}."
    lines = ["bench run", f"--methods {quote(_token(spec['method']))}", f"--datasets {quote(_token(spec['dataset']))}"]
    lines += [f"--seeds {quote(str(spec['seed']))}", f"--protocol {quote(name)}"]
    lines += [f"{option} {quote(value)}" for option, value in _changes(spec, protocol)]
    return lines, remark


def rerun(runs: Iterable[RunView]) -> list[str]:
    """Return commands that train the same runs with the code as it is now, as few as there can be."""
    seeds_of: dict[tuple[str, ...], list[int]] = {}
    for run in runs:
        lines, _ = reproduce(run.spec)
        if lines:
            rest = [line for line in lines[1:] if not line.startswith("--seeds ")]
            seeds_of.setdefault((*rest, *_out(run)), []).append(run.seed)
    methods_of: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (method, *others), seeds in seeds_of.items():
        same = f"--seeds {','.join(map(str, sorted(set(seeds))))}", tuple(others)
        methods_of.setdefault(same, []).append(shlex.split(method)[1])
    return [
        " ".join(["bench run --methods", quote(",".join(methods)), *others[:1], seeds, *others[1:]])
        for (seeds, others), methods in methods_of.items()
    ]


def _out(run: RunView) -> list[str]:
    """Return the option that names the output folder of a run, where it is not the usual one."""
    folders = run.folder.path.parents
    names = run.spec["dataset"]["name"], run.spec["method"]["name"]
    for method, dataset, out in zip(folders, folders[1:], folders[2:], strict=False):
        if (dataset.name, method.name) == names:
            return [] if out == Path("runs") else [f"--out {quote(str(out))}"]
    return []


def _token(plugin: Mapping[str, Any]) -> str:
    """Return a plugin as typed: its label, or its path with the label's settings where it is a file of the user's."""
    label, source, attribute = (str(plugin.get(key) or "") for key in ("label", "source", "attribute"))
    if not source.endswith(".py"):
        return label
    settings = label.removeprefix(str(plugin.get("name")))
    return f"{source}:{attribute}{settings}" if attribute else f"{source}{settings}"


def _changes(spec: Mapping[str, Any], protocol: Protocol | None) -> Iterator[tuple[str, str]]:
    """Yield the options that turn the protocol's recipe and data settings into those of the run."""
    dataset = spec["dataset"]
    planned = _recipe(protocol, str(dataset.get("name"))) if protocol else {}
    for key, value in spec["recipe"].items():
        if key not in planned or planned[key] != value:
            text = value if isinstance(value, str) else json.dumps(value)
            yield (OPTIONS[key], text) if key in OPTIONS else ("--set", f"protocol.{key}={text}")
    given = protocol.data.get(str(dataset.get("name")), {}) if protocol else {}
    for key, value in given.items():
        used = dig(dataset, "config", key)
        if used != value:
            yield "--set", f"{dataset['name']}.{key}={json.dumps(used)}"


def _recipe(protocol: Protocol, dataset: str) -> dict[str, Any]:
    """Return the part of the recipe that follows from the protocol alone, whatever the data set recommends."""
    if protocol.use_dataset_recipe:
        return {}
    try:
        return protocol.resolve(dataset, {}, {}).model_dump(mode="json")
    except UserError:
        return {}
