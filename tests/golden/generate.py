"""Golden histories: what every method and data set that runs without files computes, to the bit.

    python tests/golden/generate.py            # write again whatever has changed
    python tests/golden/generate.py ogm mla    # only that of some methods or data sets

Nothing is written where numbers have changed and their version has not: raise `version` of the method or data set, or
`NUMERICS` where the core changed, and run it again. docs/pages/numbers.md says when to do so.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmark.check.synthetic import Blobs
from benchmark.data import Dataset
from benchmark.protocol import Adam, Constant, Cosine, Recipe, Sgd, Steps
from benchmark.registry import DATASETS, METHODS, Kind
from benchmark.robustness import missing_modalities as missing
from benchmark.robustness import noisy_inputs as noise
from benchmark.seeds import seed_everything
from benchmark.settings import parse_settings
from benchmark.train.evaluation import encode, probe, score
from benchmark.train.execute import single_run
from benchmark.train.trainer import Trainer, build_method, load_feeds
from benchmark.versions import NUMERICS

FILE = Path(__file__).parent / "histories.json"
COMMAND = "python tests/golden/generate.py"
CPU = torch.device("cpu")
EPOCHS = 3
BLOBS = Recipe(epochs=EPOCHS, batch_size=16, optimizer=Sgd(lr=0.05), schedule=Cosine())
REAL = Recipe(epochs=EPOCHS, batch_size=64, optimizer=Sgd(lr=0.02), schedule=Cosine())
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "adam": {"optimizer": Adam(lr=0.01)},
    "adamw": {"optimizer": Adam(lr=0.01, weight_decay=0.1, decoupled=True)},
    "constant": {"schedule": Constant(), "drop_last": True},
    "steps": {"schedule": Steps(every=2, early=1)},
}
"""Recipes by which `concat` is trained besides, so that every optimizer and schedule is covered."""
WITHOUT_FILES = ("dialpad", "dialpad3")
"""Data sets that load without files."""
LARGE_ENCODERS = ("nvgesture",)
"""Data sets whose encoders take over ten seconds to run."""
CORE = ("concat", "late_sum")
"""Plain baselines: where both have changed, it is not for what a single method does."""
EVALUATED = ("concat", "late_sum", "ogm", "mmcosine")
"""Methods whose models are evaluated in full: all metrics, probe, missing modalities, noise."""
METRICS = ("accuracy", "macro_f1", "loss", "map")
"""Metrics that are compared; one that is added later changes no number."""
TOLERANCE = 1e-5
"""How far losses may be apart, relative, where another machine or build of torch computes other bits."""

LOSSES = ("train", "valid", "test")

Golden = dict[str, Any]
"""A result, or the whole file, in JSON types."""


@dataclass(frozen=True)
class Case:
    """One golden run: a method with settings on a data set, perhaps by another recipe."""

    method: str
    settings: Mapping[str, Any]
    dataset: str
    """Name of a data set, or `blobs2` and `blobs3`."""
    recipe: str = ""

    @property
    def name(self) -> str:
        shown = json.dumps(dict(self.settings), sort_keys=True) if self.settings else ""
        words = [self.method, shown, "on", self.dataset, self.recipe and f"by {self.recipe}"]
        return " ".join(filter(None, words))


# --- what is run -----------------------------------------------------------------------------------------------------


def quick_cases(method: str) -> Iterator[Case]:
    """Yield a method's variants on two synthetic modalities; `concat` also on the real data sets."""
    yield from _cases(method, "blobs2", METHODS.find(method).load().variants)
    if method == "concat":
        yield from (Case(method, {}, dataset) for dataset in WITHOUT_FILES)
        yield from (Case(method, {}, "blobs2", recipe) for recipe in RECIPES)


def full_cases(method: str) -> Iterator[Case]:
    """Yield a method's variants on three synthetic modalities, the first also on real data that load without files."""
    yield from _cases(method, "blobs3", METHODS.find(method).load().variants)
    if method != "concat":
        for dataset in WITHOUT_FILES:
            yield from _cases(method, dataset, METHODS.find(method).load().variants[:1])


def _cases(method: str, dataset: str, variants: Sequence[Mapping[str, Any]]) -> Iterator[Case]:
    kind, task = METHODS.find(method).load(), open_dataset(dataset).task
    for expanded in kind.expand(task):
        for variant in variants:
            settings = {**expanded, **variant}
            config = parse_settings(kind.Config, settings, f"method {method}")
            if kind.unsupported(config, task) is None and config.refuse(EPOCHS) is None:
                yield Case(method, settings, dataset)


def open_dataset(name: str) -> Dataset:
    """Return a data set by the name that cases give it."""
    if name.startswith("blobs"):
        return Blobs(Blobs.Config(num_modalities=int(name.removeprefix("blobs"))))
    kind = DATASETS.find(name).load()
    dataset: Dataset = kind(kind.Config(), None)
    return dataset


@dataclass
class Digest:
    """A digest of tensors and plain values, in order."""

    _sha: Any = field(default_factory=hashlib.sha256)

    def add(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self._sha.update(f"{tuple(value.shape)} {value.dtype}".encode())
            self._sha.update(value.detach().contiguous().numpy().tobytes())
        else:
            self._sha.update(json.dumps(value, sort_keys=True).encode())

    def __str__(self) -> str:
        return str(self._sha.hexdigest()[:12])


def run_case(case: Case, logged: Sequence[str] | None = None) -> Golden:
    """Train a case for a few epochs.

    Args:
        case: what to train.
        logged: names of the training scalars to compare; None for all, which are then listed in the result.

    Returns:
        {"train", "valid", "test": loss of each epoch, "logits": digest of the test logits of every epoch, "history":
        digest of what history.jsonl holds, "logged"}, of a method made of others "parts": their versions, and for some
        "evaluation": digest of metrics, probe, robustness.
    """
    kind = METHODS.find(case.method).load()
    config = parse_settings(kind.Config, case.settings, f"method {case.method}")
    dataset = open_dataset(case.dataset)
    recipe = BLOBS if case.dataset.startswith("blobs") else REAL
    recipe = recipe.model_copy(update=dict(RECIPES.get(case.recipe, {})))
    method = build_method(kind, config, dataset.task, recipe, 0, CPU)
    trainer = Trainer(method, load_feeds(dataset, recipe, CPU), recipe, 0, CPU)
    logits, history = Digest(), Digest()
    losses: dict[str, list[float]] = {part: [] for part in LOSSES}
    for _ in range(EPOCHS):
        line, _ = trainer.run_epoch()
        logged = sorted(line["train"]) if logged is None else logged
        history.add({name: line["train"].get(name) for name in logged})
        history.add([_metrics(line["valid"]), _metrics(line["test"]), line["gradients"], line["lr"], line["samples"]])
        for head in sorted(trainer.test_logits):
            logits.add(trainer.test_logits[head])
        for part, loss in zip(losses, _losses(line), strict=True):
            losses[part].append(float(f"{loss:.9g}"))
    found: Golden = {**losses, "logits": str(logits), "history": str(history), "logged": list(logged or ())}
    if config.parts:
        found["parts"] = {name: METHODS.find(name).load().version for name in config.parts}
    if case.method in EVALUATED and not case.settings and not case.recipe:
        found["evaluation"] = str(_evaluate(trainer, case.dataset))
    return found


def _losses(line: Mapping[str, Any]) -> tuple[float, float, float]:
    train = line["train"].get("loss", 0.0)  # a few methods have no single one
    return train, line["valid"]["fused"]["loss"], line["test"]["fused"]["loss"]


def _metrics(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {head: {name: found[name] for name in METRICS if name in found} for head, found in scores.items()}


def _evaluate(trainer: Trainer, dataset: str) -> Digest:
    """Digest what record.json and `bench evaluate` say of the last epoch's model."""
    method, feeds, found = trainer.method, trainer.feeds, Digest()
    train, test = encode(method, feeds.train), encode(method, feeds.test)
    found.add({m: probe(train[m], feeds.train.labels, test[m], feeds.test.labels) for m in train})
    found.add(_metrics(score(trainer.test_logits, feeds.test.labels, full=True)))
    if dataset.startswith("blobs"):  # seconds on others
        noisy = noise.Noise(dataset, missing.moments_of(feeds.train), noise.tokens_of(feeds.train))
        seed_everything(0, "missing")
        lacking = missing.measure(method, feeds, noisy.moments, dataset)
        seed_everything(0, "noise")
        rows = map(vars, (*lacking.rows, *lacking.subsets, *noise.measure(method, feeds, noisy).rows))
        plain = ("modality", "rate", "fill", "present", "strength", *METRICS)
        found.add([{name: row[name] for name in plain if name in row} for row in rows])
    return found


def run_dataset(name: str) -> Golden:
    """Return digests of a data set's encoders and, where it loads without files, of its samples, split and batches."""
    dataset, encoded = open_dataset(name), Digest()
    torch.manual_seed(0)
    for modality, encoder in dataset.task.build_encoders().items():
        for key, value in encoder.state_dict().items():
            encoded.add(key)
            encoded.add(value)
        x = 5 * torch.rand(2, *dataset.task.modalities[modality].shape)
        tokens = any(isinstance(module, torch.nn.Embedding) for module in encoder.modules())
        with torch.no_grad():
            encoded.add(encoder.eval()(x.long() if tokens else x))
    found: Golden = {"encoders": str(encoded)}
    if name not in WITHOUT_FILES:
        return found
    samples, loaded, served = dataset.load(), Digest(), Digest()
    for value in (*samples.inputs.values(), samples.labels, list(samples.ids)):
        loaded.add(value)
    feeds = load_feeds(dataset, REAL, CPU)
    for inputs in (next(feeds.train.shuffled(0, 0, 0)).inputs, next(feeds.test.in_order())):
        for modality in dataset.task.modalities:
            served.add(inputs[modality])
    return {**found, "loaded": str(loaded), "split": feeds.split, "batches": str(served)}


# --- versions and the machine ----------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Return what decides the bits of the same arithmetic: torch, the processor's instructions, and a probe of both."""
    draw, found = torch.Generator().manual_seed(0), Digest()
    for size in (8, 33, 150):
        x = torch.randn(size, 1, 12, 12, generator=draw)
        flat, weight = x.flatten(1), torch.randn(144, 31, generator=draw)
        found.add(flat @ weight)
        found.add((flat @ weight).log_softmax(1).exp().sum(0))
        found.add(torch.nn.functional.conv2d(x, torch.randn(16, 1, 3, 3, generator=draw)))
        found.add(torch.stack([flat.sin(), flat.tanh(), flat.abs().sqrt(), flat.abs().log1p()]).mean(2))
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__.partition("+")[0], "processor": capability, "probe": str(found)}


# --- comparing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """Compares today's numbers with golden ones."""

    kept: Golden
    """Content of the golden file."""
    exact: bool
    """Whether this machine computes the bits of the one that wrote it; if not, only losses and splits are compared."""

    @classmethod
    def here(cls) -> Check:
        """Compare on this machine, which is to run one thread."""
        kept = json.loads(FILE.read_text(encoding="utf-8"))
        return cls(kept, kept["machine"] == machine())

    def method(self, name: str, cases: Iterable[Case]) -> str:
        """Run cases of a method; return what is wrong with its numbers, in words, or the empty string."""
        found = {case.name: run_case(case, self._logged(case)) for case in cases}
        if older := self.parts_raised(found):
            return f"method {name}: versions of its parts were raised ({older[0]}). Write the file again: {COMMAND}"
        return self.versions(METHODS, name) or self.blame(METHODS, name, self.changed("cases", found))

    def dataset(self, name: str) -> str:
        """Run a data set; return what is wrong with its numbers, in words, or the empty string."""
        return self.versions(DATASETS, name) or self.blame(
            DATASETS, name, self.changed("data", {name: run_dataset(name)})
        )

    def versions(self, kind: Kind, name: str) -> str:
        """Return what to do where a version is not the one that the golden file was made with."""
        core = "NUMERICS", self.kept["numerics"], NUMERICS
        own = f"version of {kind.singular} {name}", self.kept[_key(kind)].get(name), kind.find(name).load().version
        for what, before, now in (core, own):
            if before != now:
                return f"{what}: the golden file has {before}, the code has {now}. Write the file again: {COMMAND}"
        return ""

    def parts_raised(self, found: Mapping[str, Golden]) -> list[str]:
        """Return the names of the results with methods as parts, such as `federated[local=pmr]`, of other versions."""
        return [
            name
            for name, result in found.items()
            if result.get("parts") != self.kept["cases"].get(name, {}).get("parts")
        ]

    def changed(self, part: str, found: Mapping[str, Golden]) -> list[str]:
        """Return the names of the results that are not the golden ones, or that have none."""
        return [name for name, result in found.items() if not self._same(self.kept[part].get(name), result)]

    def blame(self, kind: Kind, name: str, changed: Sequence[str]) -> str:
        """Say whose version is to be raised; the empty string where nothing has changed."""
        if not changed:
            return ""
        listed = ", ".join(changed[:3]) + f" and {len(changed) - 3} more" * (len(changed) > 3)
        plugin = kind.find(name)
        whose = f"`version` of {plugin.load().__name__} in {plugin.source.replace('.', '/')}.py"
        if kind is METHODS and self._core_has_changed():
            whose = "NUMERICS in benchmark/versions.py, since the plain baselines have changed too"
        return (
            f"{kind.singular} {name}: its numbers have changed and no version was raised ({listed}). "
            f"If that is a mistake, mend it. If it is meant, raise {whose}. Then: {COMMAND}"
        )

    def _core_has_changed(self) -> bool:
        cases = [case for name in CORE for case in quick_cases(name) if case.dataset == "blobs2" and not case.recipe]
        return len(self.changed("cases", {case.name: run_case(case, self._logged(case)) for case in cases})) == len(
            cases
        )

    def _logged(self, case: Case) -> Sequence[str] | None:
        """Return the names of the scalars that are compared: those logged when the golden file was written."""
        logged: Sequence[str] | None = self.kept["cases"].get(case.name, {}).get("logged")
        return logged

    def _same(self, kept: Golden | None, found: Golden) -> bool:
        if kept is None or self.exact:
            return kept == found
        pairs = [(kept[part], found[part]) for part in LOSSES if part in kept]
        close = all(math.isclose(x, y, rel_tol=TOLERANCE) for one, two in pairs for x, y in zip(one, two, strict=True))
        return close and kept.get("split") == found.get("split")


def _key(kind: Kind) -> str:
    return kind.package.rpartition(".")[2]


# --- writing ---------------------------------------------------------------------------------------------------------


def generate(names: Sequence[str] = ()) -> list[str]:
    """Write the golden file again, for the methods and data sets named or for all.

    Returns:
        Why it was not written: whose numbers have changed though no version has.
    """
    check = Check.here() if FILE.exists() else Check({"numerics": 0, "methods": {}, "datasets": {}}, exact=True)
    if names and not check.exact:
        return ["Other bits than on the machine that wrote the file: give no names, to write all of it again."]
    if names and check.kept["numerics"] != NUMERICS:
        return ["NUMERICS has been raised: give no names, to write all of it again."]
    content: Golden = {"numerics": NUMERICS, "machine": machine()}
    content |= {
        part: dict(check.kept.get(part, {})) if names else {} for part in ("methods", "datasets", "cases", "data")
    }
    unraised = []
    for kind, part, run in ((METHODS, "cases", _run_method), (DATASETS, "data", _run_dataset)):
        for name in [name for name in kind.known() if not names or name in names]:
            found = run(name)
            if name in check.kept[_key(kind)] and not check.versions(kind, name):
                raised = check.parts_raised(found) if kind is METHODS else []
                same = {case: result for case, result in found.items() if case not in raised}
                unraised += [check.blame(kind, name, check.changed(part, same))]
            content[part] |= found
            content[_key(kind)][name] = kind.find(name).load().version
    if problems := [problem for problem in unraised if problem]:
        return problems
    FILE.write_text(_to_text(content), encoding="utf-8")
    return []


def _run_method(name: str) -> dict[str, Golden]:
    return {case.name: run_case(case) for cases in (quick_cases, full_cases) for case in cases(name)}


def _run_dataset(name: str) -> dict[str, Golden]:
    return {name: run_dataset(name)}


def _to_text(content: Golden) -> str:
    """Return JSON with a line for each result, so that a change of one method is a change of its lines."""
    parts = []
    for part, value in content.items():
        if part in ("cases", "data"):
            lines = [f"{json.dumps(name)}: {json.dumps(result)}" for name, result in sorted(value.items())]
            parts.append(f"{json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n}")
        else:
            parts.append(f"{json.dumps(part)}: {json.dumps(value, sort_keys=True)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    with single_run(1):
        problems = generate(sys.argv[1:])
    sys.stdout.write("".join(f"{problem}\n" for problem in problems) or f"wrote {FILE.name}\n")
    sys.exit(bool(problems))
