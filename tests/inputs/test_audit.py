"""`bench data check`: every kind of fault is found and named, and sound data give no cause for notes."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
import torch

import benchmark.inputs.audit
from benchmark.check.synthetic import BlobEncoder
from benchmark.data import Dataset, Modality, Samples, Split, TaskSpec, hold_out
from benchmark.errors import Problem, UserError
from benchmark.inputs.audit import audit
from benchmark.inputs.contents import walk
from benchmark.inputs.leakage import Bags
from benchmark.inputs.prepare import prepare

PARTS = {"train": 120, "valid": 40, "test": 40}
ENDS = np.cumsum(list(PARTS.values()))


class Toy(Dataset):
    """Numbers and texts of two classes in turn; tests change what they are about."""

    about = "made up"
    official_valid = True
    published = PARTS

    class Config(Dataset.Config):
        split: str = "official"

    def __init__(self, **settings):
        super().__init__(self.Config(**settings))
        draw = np.random.default_rng(0)
        self.x = torch.from_numpy(draw.normal(size=(200, 6)))
        self.labels = torch.arange(200) % 2
        self.ids = [f"s{i:03d}" for i in range(200)]
        self.said = [f"text {i} " + " ".join(draw.choice(list("abcdefgh"), 4)) for i in range(200)]
        self.shared = {}
        self.parts = Split(*np.split(np.arange(200), ENDS[:-1]))

    @property
    def task(self):
        return TaskSpec({"audio": Modality((6,), BlobEncoder)}, ["cat", "dog"])

    def fingerprint(self):
        return "toy"

    def load(self):
        return Samples({"audio": self.x}, self.labels, self.ids)

    def split(self, samples, valid_share):
        if self.official_valid:
            return self.parts
        train, valid = hold_out(np.arange(160), samples.labels, valid_share, self.grouped)
        return Split(train, valid, np.arange(160, 200))

    grouped = None

    def texts(self):
        return {"text": self.said}

    def keys(self):
        return self.shared


@pytest.fixture
def toy():
    return Toy()


def found(dataset):
    """Return {name: finding} of an audit."""
    findings = audit(dataset, 0.15).findings
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def verdicts(dataset):
    return {name: finding.verdict for name, finding in found(dataset).items()}


# --- parts ---------------------------------------------------------------------------------------------------------


def test_sound_data_give_no_cause_for_notes(toy):
    result = audit(toy, 0.15)
    assert {finding.name: finding.verdict for finding in result.findings} == dict.fromkeys(
        ["counts", "samples", "classes", "ids", "length: text", "validation", "repeats: text", "repeats: audio",
         "words: text", "linear: text", "fingerprint", "split"], "ok",
    )  # fmt: skip
    assert result.verdict == "ok"
    assert result.counts == {part: {"cat": count // 2, "dog": count // 2} for part, count in PARTS.items()}
    assert found(toy)["split"].detail == toy.parts.digest(toy.ids)
    assert found(toy)["counts"].detail == "train 120, valid 40, test 40, as published"


def test_other_counts_than_the_published_ones_fail(toy):
    toy.published = {"train": 121, "valid": 40, "test": {"cat": 19, "dog": 21}}
    finding = found(toy)["counts"]
    assert finding.verdict == "fail"
    assert list(finding.examples) == [
        "train: expected 121 samples, got 120", "test: expected 19 cat, got 20", "test: expected 21 dog, got 20"
    ]  # fmt: skip
    toy.published = {"train": 120, "valid": 40, "test": {"cat": 20, "dog": 20}}
    assert found(toy)["counts"].verdict == "ok"


def test_a_published_class_or_part_that_is_not_there_is_named(toy):
    toy.published = {**PARTS, "train": {"cat": 60, "dog": 60, "cow": 7}}
    assert found(toy)["counts"].examples == ["train: expected 7 cow, got 0"]
    toy.official_valid = False
    toy.published = {**PARTS, "train": 160}
    assert found(toy)["counts"].examples == ["valid: expected 40 samples, got 0"]


def test_the_published_samples_divided_otherwise_are_a_note(toy):
    toy.published = {"train": 100, "valid": 60, "test": 40}
    assert verdicts(toy)["counts"] == "note"


def test_carved_validation_is_told_from_an_official_one_and_counted_as_train(toy):
    assert "official" in found(toy)["validation"].detail
    toy.official_valid = False
    toy.published = {"train": 160, "test": 40}
    result = found(toy)
    assert result["counts"].verdict == "ok"
    assert "24 samples, 15.0% of what is not test, held out from train" in result["validation"].detail


def test_a_skewed_class_is_a_note_and_one_that_is_never_trained_fails(toy):
    toy.labels[:110] = 0
    toy.labels[110:120] = 1
    finding = found(toy)["classes"]
    assert finding.verdict == "note"
    assert "train 10 to 110 a class, most cat (91.7%)" in finding.detail
    toy.labels[:120] = 0
    finding = found(toy)["classes"]
    assert (finding.verdict, list(finding.examples)) == ("fail", ["dog"])


def test_what_no_run_could_be_trained_on_fails_and_names_the_samples(toy):
    toy.x[[4, 190]] = torch.nan
    toy.parts = Split(toy.parts.train, toy.parts.valid[:0], toy.parts.test)
    finding = found(toy)["samples"]
    assert finding.verdict == "fail"
    assert [finding.detail, *finding.examples] == [
        "valid: expected a sample or more, got none",
        "audio: expected finite numbers, got NaN or infinity in 2 samples: s004, s190",
    ]
    toy.labels[3] = -100
    with pytest.raises(UserError, match=r"labels: expected class indices from 0 to 1, got 1 others: -100 of s003"):
        audit(toy, 0.15)


def test_features_that_are_the_same_in_all_of_train_are_a_note(toy):
    toy.x[:120, [1, 4]] = 2.5
    finding = found(toy)["features"]
    assert finding.verdict == "note"
    assert finding.examples == ["audio: 2 of 6 features constant in train: 1, 4"]
    toy.x[:120] = toy.x[0]
    assert found(toy)["features"].examples == ["audio: the same in every training sample"]


def test_a_class_that_a_part_lacks_is_a_note(toy):
    toy.labels[120:160] = 0
    finding = found(toy)["classes"]
    assert (finding.verdict, list(finding.examples)) == ("note", ["not in valid: dog"])


def test_repeated_ids_and_samples_in_two_parts_or_none_are_found(toy):
    toy.ids[7] = "s003"
    toy.parts = Split(toy.parts.train, toy.parts.valid, np.append(toy.parts.test, 5))
    finding = found(toy)["ids"]
    assert finding.verdict == "fail"
    assert finding.examples == ["s003", "s005"]
    assert "1 ids are listed twice, 1 samples are in two parts" in finding.detail
    other = Toy()
    other.parts = Split(other.parts.train[:-3], other.parts.valid, other.parts.test)
    finding = found(other)["ids"]
    assert finding.verdict == "note"
    assert finding.examples == ["s117", "s118", "s119"]


def test_shared_groups_are_a_note_unless_the_split_promised_to_keep_them_apart(toy):
    toy.shared = {"actor": [f"actor{i % 7}" for i in range(200)], "house": ["old"] * 160 + ["new"] * 39 + [""]}
    result = found(toy)
    assert result["overlap: actor"].verdict == "note"
    assert "7 of 7 in test are in train too, 40 of 40 samples" in result["overlap: actor"].detail
    assert (result["overlap: house"].verdict, result["overlap: house"].detail) == (
        "ok", "1 in train, 1 in test, none in both"
    )  # fmt: skip
    promised = Toy(split="actor")
    promised.shared = toy.shared
    assert verdicts(promised)["overlap: actor"] == "fail"


def test_unknown_values_of_a_key_are_no_overlap(toy):
    toy.shared = {"actor": [""] * 200}
    assert verdicts(toy)["overlap: actor"] == "ok"


def test_validation_closer_to_train_than_test_is_a_note(toy):
    actors = [f"actor{i // 8}" for i in range(200)]
    toy.official_valid, toy.shared = False, {"actor": actors}
    finding = found(toy)["validation"]
    assert finding.verdict == "note"
    assert "shares actor with train where test does not" in finding.detail
    toy.grouped = actors
    finding = found(toy)["validation"]
    assert finding.verdict == "ok"
    assert "apart by actor" in finding.detail


def test_hooks_of_the_wrong_length_are_told_and_leave_the_other_checks_alone(toy):
    toy.shared = {"actor": ["one"]}
    result = found(toy)
    assert result["overlap"].verdict == "fail"
    assert "keys(), actor: expected 200 values, got 1" in result["overlap"].detail
    assert result["linear: text"].verdict == "ok"


# --- repetitions ---------------------------------------------------------------------------------------------------


def test_the_same_content_in_two_parts_or_under_two_labels_is_found(toy):
    toy.x[170] = toy.x[4]  # test and train, both cats
    toy.x[181] = toy.x[190]  # within test, a dog and a cat
    finding = found(toy)["repeats: audio"]
    assert finding.verdict == "note"
    assert finding.detail == "1 of 40 in test also in train; 2 of 40 in test also under another label"
    assert finding.examples == ["s004 (cat) = s170 (cat)", "s181 (dog) = s190 (cat)"]


def test_content_repeated_within_a_part_and_class_is_counted_and_no_cause_for_a_note(toy):
    toy.x[2], toy.x[4] = toy.x[0], toy.x[0]
    finding = found(toy)["repeats: audio"]
    assert finding.verdict == "ok"
    assert "3 samples repeat" in finding.detail


def test_counts_of_repetitions_are_those_of_a_double_loop():
    draw = np.random.default_rng(1)
    toy = Toy()
    toy.x = torch.from_numpy(draw.integers(0, 90, (200, 1))).expand(200, 6)
    labels, values = toy.labels.tolist(), toy.x[:, 0].tolist()
    detail = found(toy)["repeats: audio"].detail
    for part, start, end in (("train", 0, 120), ("valid", 120, 160), ("test", 160, 200)):
        torn = sum(
            any(values[k] == values[i] and labels[k] != labels[i] for k in range(200)) for i in range(start, end)
        )
        assert f"{torn} of {end - start} in {part} also under another label" in detail
    for part, start, end in (("valid", 120, 160), ("test", 160, 200)):
        again = sum(values[i] in values[:120] for i in range(start, end))
        assert f"{again} of {end - start} in {part} also in train" in detail
    assert "train also in train" not in detail


def test_texts_that_differ_in_case_and_punctuation_alone_are_near_repeats(toy):
    toy.said[170] = "It rains again today"
    toy.said[5] = "it rains   again, TODAY!"
    result = found(toy)
    assert result["repeats: text"].verdict == "ok"
    assert result["near repeats: text"].verdict == "note"
    assert "1 of 40 in test also in train" in result["near repeats: text"].detail
    assert "s005 (dog) = s170 (cat)" in result["near repeats: text"].examples


def test_texts_without_words_are_not_called_the_same(toy):
    toy.said[5], toy.said[170] = "!!!", "..."
    assert verdicts(toy)["repeats: text"] == "ok"
    assert "near repeats: text" not in found(toy)


# --- label leakage --------------------------------------------------------------------------------------------------


def test_a_word_that_tells_the_label_is_found_with_what_it_decides(toy):
    for i in (*range(1, 80, 2), 161, 163, 164):  # 40 dogs of train; in test two dogs and a cat
        toy.said[i] += " <num>"
    result = found(toy)
    finding = result["words: text"]
    assert finding.verdict == "note"
    assert finding.examples == ["<num>: 40 of 40 in train are dog"]
    assert "as good as a label: 1, held by 3 of 40 in test, 66.7% of its class" in finding.detail
    assert result["linear: text"].verdict == "ok"


def test_labels_written_into_the_text_are_seen_by_the_linear_classifier(toy):
    toy.said = [f"{text} {'moo' if label else 'miaow'}" for text, label in zip(toy.said, toy.labels, strict=True)]
    result = found(toy)
    assert result["linear: text"].verdict == "note"
    assert "100.0% of test, the majority 50.0%" in result["linear: text"].detail
    assert "'miaow' alone 100.0% of test" in result["words: text"].detail


def test_words_and_labels_that_have_nothing_to_do_with_each_other_give_nothing_away():
    draw = np.random.default_rng(2)
    texts = [" ".join(f"w{k}" for k in draw.integers(0, 2000, 25)) for _ in range(2000)]
    labels = (draw.random(2000) < 0.2).astype(np.int64)  # 20 of 20 in the large class happen by chance
    bags = Bags(texts[:1500], labels[:1500], texts[1500:], labels[1500:])
    support = bags.held.sum(1)
    assert ((bags.held.max(1) >= 0.98 * support) & (support >= 20)).any(), "purity alone would find some"
    assert not bags.leaking_words().words


def test_the_best_word_is_that_of_a_search_over_all():
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 3, 300)
    texts = [" ".join(f"w{k}" for k in {*draw.integers(0, 40, 8), *([label + 50] if draw.random() < 0.5 else [])})
             for label in labels]  # fmt: skip
    train, test = slice(0, 200), slice(200, 300)
    bags = Bags(texts[train], labels[train], texts[test], labels[test])

    def rule(word):
        holds = np.array([word in text.split() for text in texts])
        told = np.empty(300, dtype=int)
        for side in (holds, ~holds):
            told[side] = np.bincount(labels[train][side[train]], minlength=3).argmax()
        return (told == labels)[train].mean(), (told == labels)[test].mean()

    word, accuracy = bags.best_word()
    assert rule(word)[0] == max(rule(other)[0] for other in bags.words)
    assert accuracy == pytest.approx(rule(word)[1])


def test_texts_with_nothing_to_learn_from_are_told(toy):
    toy.said = [f"word{i}" for i in range(200)]
    finding = found(toy)["words: text"]
    assert finding.verdict == "note"
    assert "nothing to learn from" in finding.detail


# --- files ---------------------------------------------------------------------------------------------------------


def test_raw_media_are_checked_without_being_prepared(clips, cache):
    result = found(clips())
    assert result["files"].detail == "160 of 40 clips, all there"
    assert (result["prepared"].verdict, result["extra files"].verdict) == ("note", "ok")
    assert "fingerprint" not in result
    assert "8000 Hz" in result["raw length: audio"].detail
    assert "40 of 40 files asked" in result["raw length: audio"].detail
    assert not list(cache.rglob("*.bin"))


def test_missing_and_empty_files_fail_and_name_the_clip(clips, raw):
    (raw / "clip05.wav").unlink()
    (raw / "clip06_1.png").write_bytes(b"")
    finding = found(clips())["files"]
    assert finding.verdict == "fail"
    assert finding.detail == "2 of 160 missing or empty, 2 of 40 clips"
    assert finding.examples == [f"clip05: missing: {raw}/clip05.wav", f"clip06: empty: {raw}/clip06_1.png"]


def test_what_is_prepared_does_without_raw_files(clips, raw):
    prepare(clips(), 1, False)
    for path in raw.glob("*.wav"):
        path.unlink()
    result = audit(clips(), 0.15)
    by_name = {finding.name: finding for finding in result.findings}
    assert by_name["files"].verdict == "note"
    assert by_name["fingerprint"].detail == clips().fingerprint()
    assert result.verdict == "note"


def test_lengths_of_what_is_prepared_are_those_of_its_arrays(clips):
    dataset = clips()
    prepare(dataset, 1, False)
    lengths = np.array([len(dataset.decode(clip)["audio"]) for clip in dataset.clips])
    detail = found(clips())["length: audio"].detail
    assert detail == (
        f"{lengths.min():,} to {lengths.max():,} samples, mean {lengths.mean():,.2f}, "
        f"{(lengths < 1000).mean():.1%} shorter than the 1,000 wanted"
    ).replace(".00,", ",")


def test_damaged_clips_fail_with_their_reason_and_are_a_note_once_allowed(clips, raw):
    (raw / "clip31.wav").write_bytes((raw / "clip31.wav").read_bytes()[:300])
    prepare(clips(), 1, False)
    finding = found(clips())["prepared"]
    assert finding.verdict == "fail"
    assert finding.detail.startswith(f"1 of 40 clips missing or damaged; made from {raw} by av ")
    assert "clip31 (high, test): truncated" in finding.examples[0]
    prepare(clips(), 1, True)
    result = found(clips())
    assert result["prepared"].verdict == "note"
    dataset = clips()
    samples = dataset.load()
    assert result["split"].detail == dataset.split(samples, 0.15).digest(samples.ids), "what a run would say"


def test_files_that_cannot_be_probed_fail(clips, raw):
    (raw / "clip07.wav").write_bytes(b"no sound at all")
    finding = found(clips())["damaged files"]
    assert finding.verdict == "fail"
    assert str(raw / "clip07.wav") in finding.examples[0]


@pytest.mark.parametrize("prepared", [False, True])
def test_the_same_raw_files_in_two_parts_are_found(clips, raw, prepared):
    shutil.copy(raw / "clip02.wav", raw / "clip32.wav")
    for k in range(3):
        shutil.copy(raw / f"clip03_{k}.png", raw / f"clip34_{k}.png")  # of the other class
    shutil.copy(raw / "clip09_0.png", raw / "clip39_0.png")  # one frame of three
    if prepared:
        prepare(clips(), 1, False)
    result = found(clips())
    frames = "video" if prepared else "frame"
    assert result["repeats: audio"].detail == "1 of 10 in test also in train"
    assert "1 of 10 in test also in train" in result[f"repeats: {frames}"].detail
    assert "1 of 10 in test also under another label" in result[f"repeats: {frames}"].detail
    assert "clip03 (high) = clip34 (low)" in result[f"repeats: {frames}"].examples


def test_files_of_equal_size_and_beginning_are_not_called_the_same(clips, raw):
    header = (raw / "clip01.wav").read_bytes()
    for name, end in (("clip01", b"a"), ("clip33", b"b")):
        (raw / f"{name}.wav").write_bytes(header + bytes(40_000) + end)
    assert found(clips())["repeats: audio"].verdict == "ok"


def test_media_that_no_list_names_are_a_note_and_other_files_are_not(clips, raw):
    (raw / "more").mkdir()
    shutil.copy(raw / "clip01.wav", raw / "more" / "clip99.wav")
    (raw / "notes.txt").write_text("hello")
    finding = found(clips())["extra files"]
    assert finding.verdict == "note"
    assert (finding.detail, finding.examples) == ("1 .wav that no list names", ["more/clip99.wav"])


def test_loops_of_links_end_and_links_to_known_files_are_not_extra(clips, raw):
    (raw / "more").mkdir()
    (raw / "more" / "up").symlink_to(raw)
    (raw / "itself").symlink_to("itself")
    (raw / "more" / "again.wav").symlink_to(raw / "clip01.wav")
    assert verdicts(clips())["extra files"] == "ok"
    assert sum(path.name == "clip01.wav" for path in walk(raw)) == 1


def test_media_behind_a_linked_folder_are_seen(clips, raw, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(raw / "clip01.wav", tmp_path / "elsewhere" / "far.wav")
    (raw / "linked").symlink_to(tmp_path / "elsewhere")
    assert found(clips())["extra files"].examples == ["linked/far.wav"]


def test_the_walk_is_bounded_and_says_so(clips, monkeypatch):
    monkeypatch.setattr(benchmark.inputs.audit, "MAX_WALKED", 10)
    assert found(clips())["extra files"].detail == "none among the first 10 files"


def test_a_pipe_in_the_folder_does_not_hold_the_audit_up(clips, raw):
    (raw / "clip05.wav").unlink()
    os.mkfifo(raw / "clip05.wav")
    os.mkfifo(raw / "pipe.wav")
    result = found(clips())
    assert result["files"].verdict == "fail"
    assert result["extra files"].verdict == "ok"


def test_lists_that_are_wrong_fail_and_a_folder_that_is_not_there_is_bad_input(toy, tmp_path):
    def wrong():
        raise UserError(*(Problem(f"line {i}", "a label", "nothing") for i in range(3)))

    toy.load = wrong
    with pytest.raises(UserError, match="line 0"):
        audit(toy, 0.15)
    toy.root = tmp_path / "toy"
    with pytest.raises(UserError, match="line 0"):
        audit(toy, 0.15)
    toy.root.mkdir()
    (finding,) = audit(toy, 0.15).findings
    assert (finding.name, finding.verdict) == ("lists", "fail")
    assert "line 0: expected a label" in finding.detail
    assert len(finding.examples) == 2


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_the_command_shows_a_table_and_a_verdict(bench, blobs):
    done = bench("data", "check", blobs)
    assert done.rc == 0, done.said
    assert "train 100, test 50" in done.said
    assert re.search(r"as it should be \(0 failed, 0 notes, \d+ ok\)$", done.said)


@pytest.mark.full
def test_the_command_ends_with_1_and_the_same_findings_as_json(bench, plugin_file, raw, clips, cache):
    (raw / "clip05.wav").unlink()
    done = bench("data", "check", plugin_file, "--data-root", raw.parent, "--json", env={"BENCH_CACHE": str(cache)})
    assert done.rc == 3
    expected = audit(clips(), 0.15)
    assert done.json["findings"] == [
        {"name": f.name, "verdict": f.verdict, "detail": f.detail, "examples": list(f.examples)}
        for f in expected.findings
    ]
    assert (done.json["verdict"], done.json["counts"]) == ("fail", expected.counts)


@pytest.mark.full
def test_the_command_ends_with_2_for_what_is_no_data_set(bench):
    done = bench("data", "check", "dialpat")
    assert done.rc == 2
    assert "Did you mean 'dialpad'?" in done.said
