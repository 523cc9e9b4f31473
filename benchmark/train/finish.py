"""The end of a run: what the rules chose becomes predictions, embeddings and the record, which is written last."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmark.method import Method
from benchmark.plan.spec import RunSpec
from benchmark.records import (
    Embeddings,
    Epoch,
    Predictions,
    Record,
    RuleResult,
    RunFolder,
    Samples,
    Seconds,
    scheduler_job,
    write_embeddings,
    write_predictions,
)
from benchmark.rules import LAST, Rule, kept
from benchmark.seeds import seed_everything
from benchmark.train.cost import flops, load_average, num_parameters, peak_memory
from benchmark.train.evaluation import Logits, encode, predict, probe, score
from benchmark.train.saving import load
from benchmark.train.trainer import Trainer


def finish(
    spec: RunSpec, folder: RunFolder, trainer: Trainer, build: Callable[[], Method], elapsed: Callable[[], float]
) -> None:
    """Write predictions, embeddings and the record from what the rules chose."""
    began = time.perf_counter()
    feeds, rules, tables = trainer.feeds, dict[str, RuleResult](), list[Predictions]()
    ids, labels = feeds.test_ids, feeds.test.labels.cpu().numpy()
    history = folder.read_history()
    for rule in trainer.rules:
        seed_everything(spec.seed, "finish", rule.name)
        epoch = trainer.choices[rule.name].epoch
        method, logits = _chosen(rule, trainer, folder, build)
        test, probes = score(logits, feeds.test.labels, full=True), None
        if method is not None:
            seen, unseen = encode(method, feeds.train), encode(method, feeds.test)
            probes = {m: probe(seen[m], feeds.train.labels, unseen[m], feeds.test.labels) for m in seen}
            if rule is kept(trainer.choices):
                write_embeddings(folder.embeddings, Embeddings(ids, labels, unseen))
        rules[rule.name] = RuleResult(epoch, Epoch(history[epoch]).scores("valid"), test, probes)
        tables.append(Predictions(rule.name, ids, labels, {head: one.numpy() for head, one in logits.items()}))
    trainer.seconds["evaluate"] += time.perf_counter() - began
    write_predictions(folder.predictions, tables)
    total = elapsed()
    record = Record(
        id=spec.id,
        rules=rules,
        modalities=tuple(trainer.method.task.modalities),
        class_names=tuple(trainer.method.task.class_names),
        num_samples=Samples(len(feeds.train), len(feeds.valid or ()), len(feeds.test)),
        num_parameters=num_parameters(trainer.method),
        flops=flops(trainer.method, next(feeds.test.in_order())),
        seconds=Seconds(**trainer.seconds, total=total),
        memory=peak_memory(trainer.run.device),
        ledger={"code": trust.code, "paper": trust.paper} if (trust := trainer.method.ledger) else {},
        gpu_seconds=total if trainer.run.device.type == "cuda" else 0.0,
        job=scheduler_job(),
        load=load_average(total),
    )
    folder.write_record(record)


def _chosen(
    rule: Rule, trainer: Trainer, folder: RunFolder, build: Callable[[], Method]
) -> tuple[Method | None, Logits]:
    """Return the model of a rule's epoch, None where none was kept, and its test logits."""
    if rule is LAST:
        return trainer.method, predict(trainer.method, trainer.feeds.test)
    saved = load(folder.checkpoints / f"{rule.name}.pt")
    if saved["method"] is None:
        return None, saved["test"]
    method = build()
    method.load_state_dict(saved["method"])
    return method, saved["test"]
