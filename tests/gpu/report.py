"""What has been found so far, on disk at every moment: `gpu.json` for programs, `gpu.md` for people. No torch here."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One line of a part."""

    name: str
    value: float | str
    unit: str = ""
    ok: bool | None = None
    """Whether it is as it should be; None where it is a measurement."""
    remark: str = ""


@dataclass(frozen=True)
class Setting:
    """What a part is told, and where it notes what it finds."""

    name: str
    out: Path
    device: str
    quick: bool
    seconds: float
    official: Path | None = None

    @property
    def folder(self) -> Path:
        """Where parts write; later ones find there what earlier ones made."""
        return self.out / "work"

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def note(self, name: str, value: float | str, unit: str = "", ok: bool | None = None, remark: str = "") -> None:
        """Write a finding down, now."""
        finding = Finding(name, value, unit, ok, remark)
        with (self.out / "parts" / f"{self.name}.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(finding)) + "\n")


class Report:
    """All parts and their findings."""

    def __init__(self, out: Path, arguments: Mapping[str, Any]) -> None:
        self._out = out
        self._parts: dict[str, dict[str, Any]] = {}
        self._writing = threading.Lock()
        self._head = {
            "began": time.strftime("%Y-%m-%d %H:%M:%S"),
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
            "arguments": {key: str(value) for key, value in arguments.items() if value},
        }

    def begin(self, name: str, about: str) -> None:
        """Open a part; what it noted in an earlier run is forgotten."""
        (self._out / "parts" / f"{name}.jsonl").unlink(missing_ok=True)
        with self._writing:
            self._parts[name] = {"about": about, "state": "running"}
        self.write()

    def end(self, name: str, how: Mapping[str, Any]) -> None:
        """Close a part."""
        self._parts[name].update(how)
        self.write()

    def findings(self, name: str) -> list[Finding]:
        """Return what a part has noted so far; a line that is still being written does not count."""
        path = self._out / "parts" / f"{name}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [Finding(**json.loads(line)) for line in lines if line.endswith("\n")]

    def passed(self, name: str) -> bool:
        """Tell whether nothing in a part is wrong."""
        fine = self._parts[name]["state"] in ("done", "n/a on cpu", "running")
        return fine and all(finding.ok is not False for finding in self.findings(name))

    @property
    def exit_code(self) -> int:
        """0 if nothing is wrong, else 1."""
        return int(not all(map(self.passed, self._parts)))

    def line(self, name: str) -> str:
        """Return a part's outcome in a line."""
        part = self._parts[name]
        wrong = [finding.name for finding in self.findings(name) if finding.ok is False]
        state = part["state"] + (f", wrong: {', '.join(wrong)}" if wrong else "")
        return f"{name:9} {part.get('seconds', 0):6.1f} s  {state}"

    def write(self) -> None:
        """Write both files, each in one step."""
        with self._writing:
            parts = {
                name: {**part, "findings": [asdict(finding) for finding in self.findings(name)]}
                for name, part in self._parts.items()
            }
            self._replace("gpu.json", json.dumps({**self._head, "parts": parts}, indent=1))
            self._replace("gpu.md", self._markdown())

    def _markdown(self) -> str:
        lines = ["# First light", "", ", ".join(f"{key}: {value}" for key, value in self._head.items()), ""]
        for name, part in self._parts.items():
            seconds = f", {part['seconds']} s" if "seconds" in part else ""
            lines += [f"## {name}: {part['about']}", "", f"{part['state']}{seconds}", ""]
            found = self.findings(name)
            if found:
                lines += ["| what | value | | remark |", "|---|---|---|---|"]
                lines += [_row(finding) for finding in found] + [""]
            if part.get("said"):
                lines += ["```", part["said"], "```", ""]
        return "\n".join(lines)

    def _replace(self, name: str, text: str) -> None:
        temporary = self._out / f".{name}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._out / name)


def _row(finding: Finding) -> str:
    value = f"{finding.value:.4g}" if isinstance(finding.value, float) else str(finding.value)
    mark = {None: "", True: "ok", False: "**wrong**"}[finding.ok]
    remark = " ".join(finding.remark.split()).replace("|", "/")
    return f"| {finding.name} | {value} {finding.unit} | {mark} | {remark} |"
