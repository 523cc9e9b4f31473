"""Runs on disk as one object: filter them, turn them into tidy tables, make reports of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from benchmark.codes import Code, split
from benchmark.errors import Problem, Problems, UserError, nearest
from benchmark.metrics import PROBE
from benchmark.records import RunView, State, dig, view_all
from benchmark.rules import BEST_VALID

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.api.shown import ShownReport


class Runs(Sequence[RunView]):
    """Runs as found on disk, finished or not, in order of path. Displays as a table in a notebook."""

    def __init__(self, runs: Iterable[RunView], unsupported: Iterable[tuple[str, str, str]] = ()) -> None:
        """Take runs.

        Args:
            runs: what `load` and `run` return, or some of them.
            unsupported: combinations that make no sense, (method, data set, reason).
        """
        self._runs = list(runs)
        self.unsupported = list(unsupported)

    @overload
    def __getitem__(self, index: int) -> RunView: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> RunView | Runs:
        return Runs(self._runs[index], self.unsupported) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[RunView]:
        return iter(self._runs)

    def __repr__(self) -> str:
        counts = Counter(str(run.status.state) for run in self)
        return f"<{len(self)} runs: {', '.join(f'{count} {state}' for state, count in counts.items()) or 'none'}>"

    def _repr_html_(self) -> str:
        return str(self.overview().to_html(index=False, escape=True, max_rows=40))

    def filter(
        self,
        method: str | Iterable[str] | None = None,
        dataset: str | Iterable[str] | None = None,
        seed: int | Iterable[int] | None = None,
        state: str | State | None = None,
        where: Callable[[RunView], bool] | None = None,
    ) -> Runs:
        """Return the runs that meet every condition given.

        Args:
            method: label as printed (`aug`, `ogm[alpha=0.3]`) or a pattern (`ogm*`), or several.
            dataset: label or pattern, or several.
            seed: a seed, or several.
            state: `done`, `failed`, `interrupted`, `cancelled`, `running` or `planned`.
            where: any other condition.

        Raises:
            UserError: for a method, data set or state that none of the runs has, with the nearest name.
        """
        problems = Problems()
        chosen = self._runs
        for what, given in (("method", method), ("dataset", dataset)):
            wanted = [given] if isinstance(given, str) else None if given is None else list(given)
            if wanted is not None:
                with problems.collect():
                    chosen = _labelled(chosen, self._runs, what, wanted)
        if seed is not None:
            seeds = {seed} if isinstance(seed, int) else set(seed)
            chosen = [run for run in chosen if run.seed in seeds]
        if state is not None:
            with problems.collect():
                if state not in set(State):
                    raise UserError(Problem("state", "a state of a run", repr(state), nearest(state, list(State))))
            chosen = [run for run in chosen if run.status.state == state]
        problems.raise_any()
        return Runs((run for run in chosen if where is None or where(run)), self.unsupported)

    def overview(self) -> pd.DataFrame:
        """Return a row for each run: what it is, state, epoch, cause, folder."""
        import pandas as pd

        rows = [
            {
                **_identity(run),
                "state": str(run.status.state),
                "epoch": run.status.epoch,
                "cause": run.problem or run.status.cause,
                "folder": str(run.folder.path),
            }
            for run in self
        ]
        return pd.DataFrame(rows, columns=[*IDENTITY, "state", "epoch", "cause", "folder"])

    def of_newest_code(self) -> Runs:
        """Return the runs that may be averaged over seeds: of each setting, those of the newest code that finished."""
        readable = [run for run in self if run.spec]
        return Runs(split(readable)[0], self.unsupported)

    def to_frame(self, older: bool = False) -> pd.DataFrame:
        """Return tidy test scores: a row for each finished run, rule, head and metric.

        Runs of older code than the newest of the same setting are left out, unless `older`; `code` tells them apart.

        Columns: dataset, method, seed, protocol, epochs, changed (what differs from the protocol), code (versions of
        core, data set and method, and digests of plugins from outside the package), run (id), rule, epoch (counted
        from 0), head (`fused` or a modality),
        metric and value. Accuracies and F1 are shares in [0, 1]; `probe` is the accuracy of a linear classifier on a
        modality's frozen features.
        """
        import pandas as pd

        rows = [row for run in (self if older else self.of_newest_code()) if run.record for row in _scores(run)]
        return pd.DataFrame(rows, columns=[*IDENTITY, "rule", "epoch", "head", "metric", "value"])

    def history(self, older: bool = False) -> pd.DataFrame:
        """Return a row for each run, epoch (from 0), split (`valid`, `test`), head and metric, with its value.

        Runs of older code than the newest of the same setting are left out, unless `older`.
        """
        import pandas as pd

        rows = [
            {**_identity(run), "epoch": line["epoch"], "split": split, "head": head, "metric": metric, "value": value}
            for run in (self if older else self.of_newest_code())
            for line in run.folder.read_history()
            for split in ("valid", "test")
            for head, scores in line.get(split, {}).items()
            for metric, value in scores.items()
        ]
        return pd.DataFrame(rows, columns=[*IDENTITY, "epoch", "split", "head", "metric", "value"])

    def predictions(self, rule: str = BEST_VALID.name, older: bool = False) -> pd.DataFrame:
        """Return a row for each finished run, test sample and head.

        Columns: dataset, method, seed, protocol, run, sample (its id), label and predicted (class indices), head,
        confidence (softmax of the predicted class) and logits (K,).

        Args:
            rule: the selection rule whose epoch to take.
            older: also runs of older code than the newest of the same setting.

        Raises:
            UserError: for a rule that there is not.
        """
        import pandas as pd

        columns = [*IDENTITY, "sample", "label", "head", "predicted", "confidence", "logits"]
        chosen = self if older else self.of_newest_code()
        rows = [row for run in chosen if run.record for row in _predictions(run, rule)]
        return pd.DataFrame(rows, columns=columns)

    def report(self, name: str | None = None) -> ShownReport:
        """Return a report of these runs; it displays its tables and pictures in a notebook.

        Args:
            name: one of `bench list`, such as `comparison`, `curves` or `significance`; by default the one whose tables
                `bench run` shows when it is done.

        Raises:
            UserError: when there is no such report, or no run.
        """
        from benchmark.api.shown import make_report

        return make_report(name, self._runs, self.unsupported)


IDENTITY = ("dataset", "method", "seed", "protocol", "epochs", "changed", "code", "run")
"""Columns that say which run a row is of."""


def load(out: str | Path = "runs") -> Runs:
    """Return every run under an output folder, finished or not; damaged ones say so in `overview`.

    Raises:
        UserError: when there is no such folder.
    """
    folder = Path(out).expanduser()
    if not folder.is_dir():
        raise UserError(Problem("load", "the output folder of runs", f"{out}, which is none", "Make runs with run()."))
    return Runs(view_all(folder))


def _identity(run: RunView) -> dict[str, Any]:
    protocol, epochs, changed, code = "", None, "", ""
    if run.spec:
        protocol, epochs = str(run.spec["protocol"]), dig(run.spec, "recipe", "epochs")
        changed, code = ", ".join(run.changes()), Code.of(run).words
    digest = run.folder.path.name.rpartition("-")[2]
    values = (run.dataset, run.method, run.seed, protocol, epochs, changed, code, digest)
    return dict(zip(IDENTITY, values, strict=True))


def _labelled(chosen: list[RunView], known: list[RunView], what: str, wanted: Sequence[str]) -> list[RunView]:
    """Return the chosen runs whose label is one of those wanted, in which `*` and `?` are wild."""
    labels = {getattr(run, what) for run in known}
    meant: set[str] = set()
    problems = Problems()
    for name in wanted:
        found = {label for label in labels if fnmatchcase(label, name.replace("[", "[[]"))}
        meant |= found
        with problems.collect():
            if not found:
                raise UserError(Problem(what, f"a {what} of these runs", repr(name), nearest(name, labels)))
    problems.raise_any()
    return [run for run in chosen if getattr(run, what) in meant]


def _scores(run: RunView) -> Iterator[dict[str, Any]]:
    assert run.record is not None
    for rule, chosen in run.record.rules.items():
        probes = {head: {PROBE: value} for head, value in (chosen.probe or {}).items()}
        for found in (chosen.test, probes):
            for head, scores in found.items():
                for metric, value in scores.items():
                    place = {"rule": rule, "epoch": chosen.epoch, "head": head}
                    yield {**_identity(run), **place, "metric": metric, "value": value}


def _predictions(run: RunView, rule: str) -> Iterator[tuple[Any, ...]]:
    """Yield a row for each sample and head, in the order of `Runs.predictions`."""
    import numpy as np

    assert run.record is not None
    rules = list(run.record.rules)
    if rule not in rules:
        raise UserError(Problem("rule", "a selection rule of the record", repr(rule), nearest(rule, rules)))
    found = run.predictions(rule)
    identity = tuple(_identity(run).values())
    for head, logits in found.logits.items():  # (N, K)
        odds = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        answers = zip(found.ids, found.labels, logits.argmax(1), odds.max(1) / odds.sum(1), logits, strict=True)
        yield from ((*identity, sample, label, head, *answer) for sample, label, *answer in answers)
