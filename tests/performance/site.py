"""What a thousand runs cost those who look at them: writing the site, and using its first page in Chromium.

    python tests/performance/site.py [--runs 1000] [--chromium /usr/bin/chromium] [--out FOLDER]

Interactive means: from asking for the page to the table sorted after a click. Also prints the sizes of the pages, and
what `bench serve` takes for its first page and for the next one.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.records import SCHEMA, RunFolder, State, Status, run_path, scan
from benchmark.site.pages import write_site
from benchmark.site.rows import RULES
from benchmark.site.server import LiveSite

SETS = {"cremad": (6, 744), "ksounds": (31, 2000), "avletters": (26, 260), "mosi": (2, 686)}
"""{data set: (classes, test samples)}, about as large as the real ones."""
METHODS = [f"method{number}[alpha={number / 10}]" for number in range(12)]
HEADS = ("fused", "audio", "video")
EPOCHS = 60


def report(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="site-") as temporary:
        folder = options.out or Path(temporary)
        root = folder / "runs"
        if not root.exists():
            make_runs(root, options.runs)
        began, worked = time.perf_counter(), time.process_time()
        index = write_site(scan(root), root, folder / "report").resolve()
        wall, used = time.perf_counter() - began, time.process_time() - worked
        report(f"site of {options.runs} runs: {wall:.1f} s, CPU {used:.1f} s")
        report(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
        sizes = [path.stat().st_size for path in (index.parent / "runs").iterdir()]
        report(f"sweep page {index.stat().st_size / 1e6:.2f} MB, largest run page {max(sizes) / 1e3:.0f} kB")
        serve(root)
        if Path(options.chromium).exists():
            browse(index, options.chromium)
        else:
            report(f"no {options.chromium}: the browser not measured")


def make_runs(root: Path, count: int) -> None:
    """Write runs with every file a page reads; one in twenty has failed."""
    rng = np.random.default_rng(0)
    for number in range(count):
        dataset = list(SETS)[number % len(SETS)]
        method = METHODS[number // len(SETS) % len(METHODS)]
        seed = number // (len(SETS) * len(METHODS))
        name = method.partition("[")[0]
        folder = RunFolder(run_path(root, dataset, name, seed, f"{number * 2654435761 % 16**10:010x}"))
        folder.path.mkdir(parents=True)
        plain = {"source": "", "attribute": "", "version": 1, "code": ""}
        spec = {
            "method": {"name": name, "label": method, "config": {f"key{n}": n for n in range(15)}, **plain},
            "dataset": {"name": dataset, "label": dataset, "config": {f"key{n}": n for n in range(8)}, **plain},
            "fingerprint": "f", "split": "s", "weights": {}, "protocol": "unified", "seed": seed, "numerics": 1,
            "torch": "2", "recipe": {"epochs": EPOCHS, "batch_size": 64, "optimizer": {"kind": "sgd", "lr": 0.1},
                                     "selection": "best_valid"},
        }  # fmt: skip
        folder.write("spec.yaml", spec)
        failed = number % 20 == 0
        state = State.FAILED if failed else State.DONE
        status = Status(state, 1, EPOCHS, EPOCHS, 0.5, "made to fail" if failed else "", dataset=dataset, method=method)
        folder.write_status(status)
        folder.write("env.json", {"argv": ["bench"], "packages": {f"library{n}": "1.0" for n in range(8)}})
        folder.log.write_text("a line of the log\n" * 200)
        lines = [history_line(epoch, rng) for epoch in range(EPOCHS)]
        (folder.path / "history.jsonl").write_text("".join(str(line).replace("'", '"') + "\n" for line in lines))
        if not failed:
            finish(folder, *SETS[dataset], rng)


def history_line(epoch: int, rng: np.random.Generator) -> dict[str, object]:
    noise = float(rng.normal()) / 50
    scores = {"accuracy": 0.8 - 0.6 * math.exp(-epoch / 15) + noise, "loss": 1.0, "macro_f1": 0.5}
    heads = dict.fromkeys(HEADS, scores)
    train = {f"{signal}/{head}": noise for signal in ("loss", "score", "gradient", "classifiers") for head in HEADS[1:]}
    return {"epoch": epoch, "valid": heads, "test": heads, "train": {"loss": noise, **train}, "lr": [0.1]}


def finish(folder: RunFolder, num_classes: int, num_samples: int, rng: np.random.Generator) -> None:
    labels = rng.integers(num_classes, size=num_samples)
    columns = {
        "rule": pa.array([rule for rule in RULES for _ in labels]),
        "id": pa.array([f"{n:05d}" for n in range(num_samples)] * len(RULES)),
        "label": pa.array(np.tile(labels, len(RULES))),
    }
    for head in HEADS:
        logits = rng.normal(size=(num_samples * len(RULES), num_classes)).astype(np.float32)
        columns[head] = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), num_classes)
    pq.write_table(pa.table(columns), folder.predictions)
    accuracy = float(rng.uniform(0.3, 0.9))
    scores = {head: {"accuracy": accuracy, "macro_f1": accuracy, "map": accuracy, "loss": 1.0} for head in HEADS}
    entry = {"epoch": EPOCHS // 2, "valid": scores, "test": scores, "probe": dict.fromkeys(HEADS[1:], accuracy)}
    record = {
        "schema": SCHEMA, "rules": dict.fromkeys(RULES, entry), "modalities": list(HEADS[1:]),
        "class_names": [f"class {n}" for n in range(num_classes)], "num_samples": {"test": num_samples},
        "num_parameters": 10**7, "flops": 10**9, "seconds": {"total": 600 * accuracy},
        "files": {folder.predictions.name: folder.predictions.stat().st_size},
    }  # fmt: skip
    folder.write("record.json", record)


def serve(root: Path) -> None:
    """Time the first page of the live site, and the next ones."""
    live = LiveSite(root)
    for words in ("first page of bench serve", "the next one, nothing changed"):
        began = time.perf_counter()
        live.find("/")
        report(f"{words}: {time.perf_counter() - began:.2f} s")
    log = next(root.rglob("log.txt"))
    log.write_text("changed\n")
    began = time.perf_counter()
    live.find("/")
    report(f"the next one, one run changed: {time.perf_counter() - began:.2f} s")


def browse(index: Path, chromium: str) -> None:
    """Time from asking for the sweep page to its table sorted after a click; the best and the worst of five."""
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            began = time.perf_counter()
            page.goto(index.as_uri(), wait_until="commit")
            page.locator("[aria-sort=none] button", has_text="best valid").click()
            page.locator("[aria-sort=descending]").wait_for()
            page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")  # it has been drawn
            seconds.append(time.perf_counter() - began)
            page.close()
        browser.close()
    report(f"sweep page asked for, sorted and drawn in Chromium: {min(seconds):.2f} to {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
