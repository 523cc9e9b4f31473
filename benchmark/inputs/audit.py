"""What is wrong with a data set, or worth knowing of it, before anything is trained on it (`bench data check`).

`fail`: a run would not get the published data, or not all of it. `note`: the data are like this, and readers of results
on them should know. Raw media need not be prepared for it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from re import findall
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmark.data import Dataset
from benchmark.encoders.config import TextEncoderConfig
from benchmark.errors import UserError
from benchmark.inputs.clips import ClipDataset
from benchmark.inputs.contents import MEDIA, PLAYABLE, Place, blank_clips, digest_samples, place, unusable, walk
from benchmark.inputs.encoded import EncodedDataset
from benchmark.inputs.leakage import Bags
from benchmark.inputs.listing import Listing, read_listing
from benchmark.inputs.media import Facts, MediaError, probe
from benchmark.inputs.raw import changed_clips, files_of
from benchmark.inputs.store import Spread, Tiled
from benchmark.loading import PARTS, Fault, absent_classes, constant_features, input_faults, part_faults

SHOWN = 10
"""Examples of a finding."""
SKEWED = 1.5
"""A majority class is noted from this many times its share among equal classes on."""
MAX_WALKED = 1_000_000
"""Files looked at below a data set's folder."""
MAX_PROBED = 200
"""Files of each kind whose length is read where nothing is prepared."""
SHORT_CLIP = 0.1
"""Seconds below which a sound or video is noted as hardly one."""
MAX_TEXTS = 20_000
"""Training texts that the words are learned from, spread evenly over all."""
SOLVED = 0.95
"""Accuracy from which on a linear classifier of words is noted."""

Verdict = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    verdict: Verdict
    detail: str
    examples: Sequence[str] = ()


@dataclass(frozen=True)
class Audit:
    """What all checks found."""

    findings: Sequence[Finding]
    counts: Mapping[str, Mapping[str, int]]
    """Samples of each part and class."""

    @property
    def verdict(self) -> Verdict:
        found = {finding.verdict for finding in self.findings}
        return "fail" if "fail" in found else "note" if "note" in found else "ok"


def audit(dataset: Dataset, valid_share: float) -> Audit:
    """Run all checks.

    Args:
        dataset: with its lists in place.
        valid_share: what is held out from train where no validation is published.

    Raises:
        UserError: when there is no folder of it, so that nothing can be checked.
    """
    try:
        listing = read_listing(dataset, valid_share)
    except UserError as error:
        if dataset.root is None or not dataset.root.is_dir():
            raise
        return Audit([_failure("lists", error)], {})
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            findings += check(listing)
        except UserError as error:
            findings.append(_failure(name, error))
    return Audit(findings, {part: listing.counts(listing.part(part)) for part in PARTS})


def _failure(name: str, error: UserError) -> Finding:
    return Finding(name, "fail", str(error.problems[0]), [str(problem) for problem in error.problems[1:]][:SHOWN])


# --- parts ---------------------------------------------------------------------------------------------------------


def check_counts(listing: Listing) -> Iterator[Finding]:
    """Compare the parts, and their classes where known, with the published ones."""
    detail = ", ".join(f"{part} {len(index):,}" for part, index in listing.official.items())
    published = listing.dataset.published
    wrong = [
        f"{part}: expected {count:,} {what}, got {found.get(what, 0):,}"
        for part, expected in published.items()
        for found in [{"samples": len(listing.in_part(part)), **listing.counts(listing.in_part(part))}]
        for what, count in ({"samples": expected} if isinstance(expected, int) else expected).items()
        if found.get(what, 0) != count
    ]
    total = sum(count if isinstance(count, int) else sum(count.values()) for count in published.values())
    if not published:
        yield Finding("counts", "ok", f"{detail}; the data set names no published ones")
    elif not wrong:
        yield Finding("counts", "ok", f"{detail}, as published")
    elif total == len(listing.samples):
        yield Finding("counts", "note", f"{detail}: the published samples, divided otherwise", wrong[:SHOWN])
    else:
        subset = getattr(listing.dataset.config, "counts", "published") == "any"
        yield Finding("counts", "note" if subset else "fail", f"{detail}: not as published", wrong[:SHOWN])


def check_classes(listing: Listing) -> Iterator[Finding]:
    """Report how even the classes are, and find those that are tested and never trained."""
    facts, skewed = [], False
    for part, index in listing.official.items():
        counts = listing.counts(index)
        largest = max(counts, key=lambda name: counts[name])
        share = counts[largest] / max(len(index), 1)
        skewed |= share > SKEWED / len(counts)
        facts.append(f"{part} {min(counts.values()):,} to {counts[largest]:,} a class, most {largest} ({share:.1%})")
    train, test = (listing.counts(listing.part(part)) for part in ("train", "test"))
    untrained = [name for name, count in test.items() if count and not train[name]]
    if untrained:
        yield Finding("classes", "fail", f"{len(untrained)} classes of test are not in train", untrained[:SHOWN])
    else:
        absent = absent_classes(listing.dataset, listing.samples, listing.split)
        examples = [f"not in {part}: {', '.join(names[:SHOWN])}" for part, names in absent.items()]
        yield Finding("classes", "note" if skewed or absent else "ok", "; ".join(facts), examples)


def check_samples(listing: Listing) -> Iterator[Finding]:
    """Look for what would keep a run from being trained: inputs that are NaN or too few, parts without samples."""
    faults = list(part_faults(listing.dataset, listing.samples, listing.split, listing.valid_share))
    if not isinstance(listing.dataset, ClipDataset):
        faults += input_faults(listing.dataset, listing.samples)
    if faults:
        yield Finding("samples", "fail", _sentence(faults[0]), [_sentence(fault) for fault in faults[1:]][:SHOWN])
    else:
        yield Finding("samples", "ok", "inputs of every sample, parts that can be trained on")


def _sentence(fault: Fault) -> str:
    what, expected, got = fault
    return f"{what}: expected {expected}, got {got}"


def check_features(listing: Listing) -> Iterator[Finding]:
    """Look for features that say nothing: they are the same in every training sample."""
    constant = constant_features(listing.samples, listing.split)
    if constant:
        examples = [f"{modality}: {what}" for modality, what in constant.items()]
        yield Finding("features", "note", f"constant in {', '.join(constant)}", examples)


def check_ids(listing: Listing) -> Iterator[Finding]:
    """Find samples that are listed twice, in two parts, or in none."""
    twice = [name for name, count in Counter(listing.samples.ids).items() if count > 1]
    uses = Counter(np.concatenate([listing.part(part) for part in PARTS]).tolist())
    in_two = [listing.samples.ids[i] for i, count in uses.items() if count > 1]
    unused = [name for i, name in enumerate(listing.samples.ids) if i not in uses]
    if twice or in_two:
        detail = f"{len(twice):,} ids are listed twice, {len(in_two):,} samples are in two parts"
        yield Finding("ids", "fail", detail, [*twice, *in_two][:SHOWN])
    elif unused:
        yield Finding("ids", "note", f"{len(unused):,} of {len(listing.samples):,} are in no part", unused[:SHOWN])
    else:
        yield Finding("ids", "ok", f"{len(listing.samples):,}, each in one part")


def check_keys(listing: Listing) -> Iterator[Finding]:
    """Look for speakers, subjects ... of test that are in train too."""
    test = listing.part("test")
    for key in listing.keys:
        known, tested = listing.values(key, listing.official["train"]), listing.values(key, test)
        shared = sorted(known & tested)
        if not shared:
            yield Finding(f"overlap: {key}", "ok", f"{len(known):,} in train, {len(tested):,} in test, none in both")
            continue
        num_samples = sum(listing.keys[key][i] in known for i in test)
        promised = getattr(listing.dataset.config, "split", None) == key
        detail = (
            f"{len(shared):,} of {len(tested):,} in test are in train too, {num_samples:,} of {len(test):,} samples"
        )
        yield Finding(f"overlap: {key}", "fail" if promised else "note", detail, shared[:SHOWN])


def check_validation(listing: Listing) -> Iterator[Finding]:
    """Report how validation was made, and whether it is closer to train than test is."""
    train, valid, test = (listing.part(part) for part in PARTS)
    share = len(valid) / max(len(train) + len(valid), 1)
    made = f"held out from train, {listing.valid_share:.0%} wanted" if listing.held_out else "official"
    common = {key: listing.values(key, train) & listing.values(key, valid) for key in listing.keys}
    apart = [key for key in common if not common[key]]
    closer = [key for key in common if common[key] and not listing.values(key, train) & listing.values(key, test)]
    detail = f"{len(valid):,} samples, {share:.1%} of what is not test, {made}"
    detail += f", apart by {' and '.join(apart)}" if apart else ""
    detail += f"; shares {' and '.join(closer)} with train where test does not, and so promises more" if closer else ""
    yield Finding("validation", "note" if closer else "ok", detail)


def check_digests(listing: Listing) -> Iterator[Finding]:
    """Report the digests of data and split that go into a run's id."""
    if isinstance(listing.dataset, ClipDataset) and not listing.usable:
        return
    samples, split = listing.samples, listing.split
    failed = {entry["id"] for entry in listing.manifest["failed"]} if listing.manifest else set()
    if failed:
        samples = samples.subset(np.array([i for i, name in enumerate(samples.ids) if name not in failed]))
        split = listing.dataset.split(samples, listing.valid_share)
    yield Finding("fingerprint", "ok", listing.dataset.fingerprint())
    yield Finding("split", "ok", split.digest(samples.ids))


# --- files ---------------------------------------------------------------------------------------------------------


def check_files(listing: Listing) -> Iterator[Finding]:
    """Look for files of the lists that are not there, and for media in the folder that no list names."""
    dataset = listing.dataset
    if not isinstance(dataset, ClipDataset):
        return
    paths = {path: clip.id for clip in dataset.clips for path in clip.files.values()}
    faults = {path: reason for path in paths if (reason := unusable(path))}
    if faults:
        num_clips = sum(not faults.keys().isdisjoint(clip.files.values()) for clip in dataset.clips)
        detail = f"{len(faults):,} of {len(paths):,} missing or empty, {num_clips:,} of {len(dataset.clips):,} clips"
        detail += "; a run does without, all it reads is prepared" if listing.usable else ""
        examples = [f"{paths[path]}: {reason}: {path}" for path, reason in islice(faults.items(), SHOWN)]
        yield Finding("files", "note" if listing.usable else "fail", detail, examples)
    else:
        yield Finding("files", "ok", f"{len(paths):,} of {len(dataset.clips):,} clips, all there")
    if dataset.root is not None:
        known = {place(file) for path in paths.keys() - faults.keys() for file in files_of(path)}
        yield _extra_files(dataset.root, known)


def _extra_files(root: Path, known: set[Place]) -> Finding:
    files = list(islice(walk(root), MAX_WALKED))
    extra = [path for path in files if path.suffix.lower() in MEDIA and place(path) not in known]
    kinds = Counter(path.suffix.lower() for path in extra)
    detail = (
        ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()) + " that no list names" if extra else "none"
    )
    detail += f" among the first {MAX_WALKED:,} files" if len(files) == MAX_WALKED else ""
    return Finding("extra files", "note" if extra else "ok", detail, [str(p.relative_to(root)) for p in extra[:SHOWN]])


def check_store(listing: Listing) -> Iterator[Finding]:
    """Report what `bench data prepare` made of raw media."""
    if not isinstance(listing.dataset, ClipDataset):
        return
    manifest = listing.manifest
    if manifest is None:
        yield Finding(
            "prepared", "note", f"not yet: bench data prepare {listing.dataset.name}, into {listing.dataset.store}"
        )
        return
    libraries = ", ".join(f"{name} {version}" for name, version in manifest["libraries"].items() if version)
    made = f"made from {manifest['root']} by {libraries}"
    failed = [f"{entry['id']} ({entry['class']}, {entry['part']}): {entry['reason']}" for entry in manifest["failed"]]
    if failed:
        allowed = ", which was allowed" if manifest["allow_missing"] else ""
        detail = f"{len(failed):,} of {manifest['num_clips']:,} clips missing or damaged{allowed}; {made}"
        yield Finding("prepared", "note" if allowed else "fail", detail, failed[:SHOWN])
    else:
        yield Finding("prepared", "ok", f"all {manifest['num_clips']:,} clips; {made}")
    dataset = listing.dataset
    if changed := [clip.id for clip in changed_clips(dataset.store, manifest["num_shards"], dataset.clips, None)]:
        detail = f"{len(changed):,} clips have other raw files now than when they were prepared"
        yield Finding("raw files", "fail", f"{detail}: bench data prepare {dataset.name}", changed[:SHOWN])
    for modality, ids in blank_clips(dataset.store).items():
        yield _blank(modality, ids, manifest["num_clips"])


def _blank(modality: str, ids: Sequence[str], num_clips: int) -> Finding:
    detail = f"{len(ids):,} of {num_clips:,} clips hold one value throughout: silence, black frames or the like"
    return Finding(f"blank: {modality}", "note" if ids else "ok", detail if ids else "none", ids[:SHOWN])


def check_lengths(listing: Listing) -> Iterator[Finding]:
    """Report how long sounds, videos and texts are, and how many are not as long as a sample wants."""
    dataset = listing.dataset
    if isinstance(dataset, ClipDataset):
        if listing.usable:
            yield from _prepared_lengths(dataset)
        yield from _probed_lengths(dataset)
    for modality, texts in listing.texts.items():
        words = np.array([len(text.split()) for text in texts])
        cut = ""
        if isinstance(dataset, EncodedDataset) and isinstance(dataset.encoder(modality), TextEncoderConfig):
            (tokens,) = dataset.task.modalities[modality].shape
            cut = f", {np.mean(words > tokens):.1%} more than the {tokens:,} tokens read"
        yield Finding(f"length: {modality}", "ok", f"{_spread(words, 'words')}{cut}")


def _prepared_lengths(dataset: ClipDataset) -> Iterator[Finding]:
    for modality, rows in dataset.load().inputs.items():
        if isinstance(rows, Tiled | Spread):
            unit, wanted = ("samples", rows.samples) if isinstance(rows, Tiled) else ("frames", rows.frames)
            short = f"{np.mean(rows.packed.length < wanted):.1%} shorter than the {wanted:,} wanted"
            yield Finding(f"length: {modality}", "ok", f"{_spread(rows.packed.length, unit)}, {short}")


def _probed_lengths(dataset: ClipDataset) -> Iterator[Finding]:
    files: dict[str, list[Path]] = defaultdict(list)
    for clip in dataset.clips:
        for name, path in clip.files.items():
            if path.suffix.lower() in PLAYABLE and not unusable(path):
                files[name].append(path)
    damaged = []
    for name, paths in files.items():
        facts = []
        for path in paths[:: -(-len(paths) // MAX_PROBED)]:
            try:
                facts.append(probe(path))
            except MediaError as error:
                damaged.append(f"{path}: {error}")
        if facts:
            detail = f"{_told(facts)}; {len(facts):,} of {len(paths):,} files asked"
            odd = _odd(facts)
            yield Finding(f"raw length: {name}", "note" if odd else "ok", f"{odd}{detail}")
    if damaged:
        yield Finding("damaged files", "fail", f"{len(damaged):,} of those asked for their length", damaged[:SHOWN])


def _odd(facts: Sequence[Facts]) -> str:
    """Return in words what of the files' own account makes decoded clips differ from what one may expect."""
    rates = {fact.sample_rate for fact in facts if fact.sample_rate is not None}
    odd = {
        f"shorter than {SHORT_CLIP:g} s": sum(fact.seconds is not None and fact.seconds < SHORT_CLIP for fact in facts),
        "of a varying frame rate, so that frames counted are no seconds": sum(fact.varies for fact in facts),
        "of another sample rate than others": len(facts) if len(rates) > 1 else 0,
    }
    return "".join(f"{count:,} {what}; " for what, count in odd.items() if count)


def _told(facts: Sequence[Facts]) -> str:
    """Return in words what media files say of themselves."""
    told = []
    for field, unit in (("seconds", "s"), ("num_frames", "frames")):
        values = [value for fact in facts if (value := getattr(fact, field)) is not None]
        told += [_spread(np.array(values), unit)] if values else []
    for field, unit in (("fps", "frames a second"), ("sample_rate", "Hz"), ("channels", "channels")):
        kinds = sorted({value for fact in facts if (value := getattr(fact, field)) is not None})
        told += [f"{' or '.join(f'{kind:g}' for kind in kinds[:SHOWN])} {unit}"] if kinds else []
    return ", ".join(told)


def _spread(values: NDArray[Any], unit: str) -> str:
    low, mean, high = (f"{value:,.2f}".removesuffix(".00") for value in (values.min(), values.mean(), values.max()))
    return f"{low} to {high} {unit}, mean {mean}"


# --- repetitions and label leakage ----------------------------------------------------------------------------------


def check_repeats(listing: Listing) -> Iterator[Finding]:
    """Look for samples that are the same in a modality, and for texts that are but for case and punctuation."""
    for modality, texts in listing.texts.items():
        words = [" ".join(findall(r"\w+", text.casefold())) for text in texts]
        exact, near = (
            _repeats(listing, f"repeats: {modality}", texts),
            _repeats(listing, f"near repeats: {modality}", words),
        )
        yield exact
        if near.detail != exact.detail:
            yield near
    for modality, digests in digest_samples(listing).items():
        if any(digests):
            yield _repeats(listing, f"repeats: {modality}", digests)


def _repeats(listing: Listing, name: str, values: Sequence[str]) -> Finding:
    """Count samples that share a value with train or with another class; an empty value is unknown."""
    labels, numbers = listing.labels, dict[str, int]()
    codes = np.array([numbers.setdefault(value, len(numbers)) for value in values])
    known, in_train = codes != numbers.get("", -1), np.zeros(len(codes), bool)
    in_train[listing.official["train"]] = True
    trained = known & ~in_train & np.isin(codes, codes[in_train])
    code_of_label = np.unique(np.stack([codes, labels], 1), axis=0)[:, 0]  # once for each label it has
    torn = known & (np.bincount(code_of_label)[codes] > 1)
    facts, examples = [], dict[str, None]()
    for part, index in reversed(listing.official.items()):  # test first
        for what, hit in (("also in train", trained), ("also under another label", torn)):
            found = index[hit[index]]
            facts += [f"{len(found):,} of {len(index):,} in {part} {what}"] if len(found) else []
            for i in found[:3]:
                other = np.flatnonzero((codes == codes[i]) & (in_train if hit is trained else labels != labels[i]))[0]
                examples[" = ".join(map(listing.name, sorted((i, other))))] = None
    num_repeated = int((known & (np.bincount(codes)[codes] > 1)).sum())
    detail = "; ".join(facts) or f"none in two parts or classes; {num_repeated:,} samples repeat one of their own part"
    return Finding(name, "note" if facts else "ok", detail, list(examples)[:SHOWN])


def check_leakage(listing: Listing) -> Iterator[Finding]:
    """Look for label leakage in texts: how far one word, and a linear classifier of all words, get."""
    train, test, labels = listing.official["train"], listing.official["test"], listing.labels
    if not len(test) or len(np.unique(labels[train])) < 2:
        return
    train = train[:: -(-len(train) // MAX_TEXTS)]
    for modality, texts in listing.texts.items():
        try:
            bags = Bags([texts[i] for i in train], labels[train], [texts[i] for i in test], labels[test])
        except ValueError as error:
            yield Finding(f"words: {modality}", "note", f"nothing to learn from: {error}")
            continue
        yield _leakage(listing, modality, bags)
        accuracy = bags.linear_accuracy()
        detail = f"linear on words {accuracy:.1%} of test, the majority {bags.majority:.1%}"
        yield Finding(f"linear: {modality}", "note" if accuracy >= SOLVED else "ok", detail)


def _leakage(listing: Listing, modality: str, bags: Bags) -> Finding:
    found, (word, accuracy) = bags.leaking_words(), bags.best_word()
    alone = f"{word!r} alone {accuracy:.1%} of test, the majority {bags.majority:.1%}"
    if not found.words:
        return Finding(f"words: {modality}", "ok", f"none as good as a label; {alone}")
    held = f"held by {found.num_decided:,} of {len(bags.test_labels):,} in test, {found.accuracy:.1%} of its class"
    detail = f"as good as a label: {len(found.words):,}, {held}; {alone}"
    names = listing.dataset.task.class_names
    examples = [f"{word}: {hits:,} of {support:,} in train are {names[k]}" for word, k, hits, support in found.words]
    return Finding(f"words: {modality}", "note", detail, examples[:SHOWN])


CHECKS: Mapping[str, Callable[[Listing], Iterator[Finding]]] = {
    "counts": check_counts,
    "samples": check_samples,
    "features": check_features,
    "classes": check_classes,
    "ids": check_ids,
    "files": check_files,
    "prepared": check_store,
    "length": check_lengths,
    "overlap": check_keys,
    "validation": check_validation,
    "repeats": check_repeats,
    "words": check_leakage,
    "digests": check_digests,
}
"""In the order in which they are shown. Where a whole check fails, its name here is that of the finding."""
