"""Builds every report of a folder of runs, found in any order, into another: `python golden.py RUNS TO SHUFFLE`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from benchmark.records import scan
from benchmark.registry import REPORTS
from benchmark.report import compare, write
from benchmark.tables.document import document


def build(runs: Path, to: Path, shuffle: int, names: list[str]) -> None:
    found = list(scan(runs))
    random.Random(shuffle).shuffle(found)
    comparisons, _ = compare(found, [("gated", "sound", "defined for two modalities")])
    sections = []
    for name in names or sorted(REPORTS.known()):
        report = REPORTS.find(name).load()()
        artifacts = list(report.build(comparisons))
        for table in report.tables(comparisons):
            table.to_rich()
        write(artifacts, to)
        sections.append((f"{name}: {report.about}", artifacts))
    write([document(sections)], to)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
