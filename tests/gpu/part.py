"""Run one part of the check: `python -P -m gpu.part module:function --out DIR --name NAME ...`. Started by check.py."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from gpu.report import Setting


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("function")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--official", type=Path)
    given = parser.parse_args()
    module, _, function = given.function.partition(":")
    setting = Setting(given.name, given.out, given.device, given.quick, given.seconds, given.official)
    setting.folder.mkdir(parents=True, exist_ok=True)
    getattr(importlib.import_module(f"gpu.{module}"), function)(setting)


if __name__ == "__main__":
    main()
