"""Raw files: their order, what beside them is none, and whether a store was made from those that are there now."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from PIL import Image

from benchmark.errors import UserError
from benchmark.inputs.audit import audit
from benchmark.inputs.prepare import prepare
from benchmark.inputs.raw import files_of, natural_key, stat_of


def names(folder):
    return [file.name for file in files_of(folder)]


def test_numbers_in_names_count_as_numbers(tmp_path):
    wanted = [f"frame_{number}.jpg" for number in range(1, 121)]
    for name in sorted(wanted):
        (tmp_path / name).touch()
    assert names(tmp_path) == wanted
    padded = [f"{number:05d}.jpg" for number in range(120)]
    assert sorted(padded, key=natural_key) == padded


def test_names_of_words_numbers_and_other_digits_can_be_sorted_together():
    mixed = ["10", "9", "a", "a1b2", "a1b10", "1a", "", "٣", "²", "a01", "a1"]
    assert [name for name in sorted(mixed, key=natural_key) if name.startswith("a1b")] == ["a1b2", "a1b10"]


def test_what_systems_leave_beside_files_is_none_of_them(tmp_path):
    for name in ("2.jpg", "10.JPG", "._2.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert names(tmp_path) == ["2.jpg", "10.JPG"]


@pytest.fixture
def two_roots(clips, raw, tmp_path):
    """Return the data set of two folders that have the same lists and other sounds."""
    other = tmp_path / "other" / "clips"
    shutil.copytree(raw, other)
    for file in other.glob("*.wav"):
        sound, rate = soundfile.read(file)
        soundfile.write(file, sound[::-1], rate)
    one = clips()
    return one, type(one)(one.config, other)


def test_two_folders_of_raw_files_never_share_a_store(two_roots):
    one, two = two_roots
    prepare(one, 1, False)
    with pytest.raises(UserError, match=rf"what is prepared is of {one.root}"):
        two.load()
    prepare(two, 1, False)
    assert one.store != two.store
    assert one.fingerprint() != two.fingerprint()
    for dataset in two_roots:
        sound = dataset.load().take(np.array([0]))["audio"][0].numpy()
        expected = dataset.decode(dataset.clips[0])["audio"]
        assert np.array_equal(sound[: len(expected)], expected[:1000])


def test_the_same_files_elsewhere_have_a_store_of_their_own_and_the_same_fingerprint(clips, raw, tmp_path):
    one = clips()
    shutil.copytree(raw, tmp_path / "copy" / "clips")
    two = type(one)(one.config, tmp_path / "copy" / "clips")
    prepare(one, 1, False)
    prepare(two, 1, False)
    assert one.store != two.store
    assert one.fingerprint() == two.fingerprint()


def test_a_link_to_the_folder_and_a_relative_path_are_the_folder(clips, raw, tmp_path, monkeypatch):
    one = clips()
    (tmp_path / "link").symlink_to(raw)
    monkeypatch.chdir(raw.parent)
    for root in (tmp_path / "link", type(raw)(raw.name)):
        assert type(one)(one.config, root).store == one.store


def test_a_store_of_before_roots_were_told_apart_is_used_by_its_own_root_only(two_roots):
    one, _ = two_roots
    prepare(one, 1, False)
    fingerprint = one.fingerprint()
    one.store.rename(one.store.with_name(one.key))
    again, stranger = (type(one)(dataset.config, dataset.root) for dataset in two_roots)
    assert again.store.name == again.key
    assert again.fingerprint() == fingerprint
    with pytest.raises(UserError, match="a prepared store"):
        stranger.load()


def test_other_files_in_the_same_place_are_noticed_when_the_store_is_opened(clips, raw):
    prepare(clips(), 1, False)
    before = clips().fingerprint()
    for file in raw.glob("*.wav"):
        os.utime(file, (1, 1))
    assert clips().fingerprint() == before, "touched, but the same"
    for file in raw.glob("*.wav"):
        sound, rate = soundfile.read(file)
        soundfile.write(file, sound[::-1], rate)  # as long as before
    with pytest.raises(UserError, match=r"other ones now, first those of clip clip00.*bench data prepare"):
        clips().load()
    prepare(clips(), 1, False)
    assert clips().fingerprint() != before


def test_a_store_is_used_without_its_raw_files(clips, raw):
    prepare(clips(), 1, False)
    for file in [*raw.glob("*.wav"), *raw.glob("*.png")]:
        file.unlink()
    assert len(clips().load()) == 40


def findings(dataset):
    return {finding.name: finding for finding in audit(dataset, 0.2).findings}


def test_the_check_says_of_which_root_a_store_is_and_which_files_changed(clips, raw):
    prepare(clips(), 1, False)
    assert f"made from {raw}" in findings(clips())["prepared"].detail
    sound, rate = soundfile.read(raw / "clip03.wav")
    soundfile.write(raw / "clip03.wav", sound[::-1], rate)
    found = findings(clips())["raw files"]
    assert (found.verdict, found.examples) == ("fail", ["clip03"])


def test_silence_and_black_frames_are_told(clips, raw):
    soundfile.write(raw / "clip04.wav", np.zeros(1000), 8000)
    for number in range(3):
        Image.new("RGB", (32, 24)).save(raw / f"clip05_{number}.png")
    prepare(clips(), 1, False)
    found = findings(clips())
    assert (found["blank: audio"].verdict, found["blank: audio"].examples) == ("note", ["clip04"])
    assert (found["blank: video"].verdict, found["blank: video"].examples) == ("note", ["clip05"])


def test_short_sounds_and_mixed_rates_are_told(clips, raw):
    prepare(clips(), 1, False)
    assert findings(clips())["raw length: audio"].verdict == "note", "some last 0.05 s"
    soundfile.write(raw / "clip06.wav", np.ones(1) * 0.1, 44_100)
    prepare(clips(), 1, False)
    found = findings(clips())["raw length: audio"]
    assert "shorter than 0.1 s" in found.detail
    assert "of another sample rate than others" in found.detail


def test_arrays_that_no_run_can_use_are_failed_clips(clips, monkeypatch):
    dataset = clips()
    decode = type(dataset).decode

    def damaged(self, clip):
        arrays = dict(decode(self, clip))
        if clip.id == "clip02":
            arrays["audio"] = arrays["audio"] * np.float32("nan")
        if clip.id == "clip03":
            arrays["video"] = arrays["video"][:0]
        return arrays

    monkeypatch.setattr(type(dataset), "decode", damaged)
    reasons = {entry["id"]: entry["reason"] for entry in prepare(dataset, 1, True).failed}
    assert reasons == {
        "clip02": "audio has values that are not finite",
        "clip03": "video decodes to nothing, shape (0, 24, 32, 3)",
    }


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 70000\n"


def test_a_part_with_nothing_left_is_refused_whatever_is_allowed(clips, raw, cache):
    for i in range(30, 40):
        (raw / f"clip{i}.wav").write_bytes(POINTER)
    with pytest.raises(UserError, match=r"clips, test: expected clips .* got none of 10.*git lfs pull"):
        prepare(clips(), 1, True)
    with pytest.raises(UserError, match="a prepared store"):
        clips().load()


def test_a_store_with_nothing_in_it_is_refused(clips):
    """As an older release left it behind `--allow-missing`."""
    dataset = clips()
    store = prepare(dataset, 1, False).store
    manifest = json.loads((store / "manifest.json").read_text())
    lost = [{"id": clip.id, "class": "low", "part": clip.part, "reason": "gone"} for clip in dataset.clips]
    (store / "manifest.json").write_text(
        json.dumps({**manifest, "failed": lost, "allow_missing": True, "modalities": {}})
    )
    with pytest.raises(UserError, match="clips that can be decoded, got none"):
        clips().load()


def test_a_clip_of_many_frames_is_compared_by_all_of_them(clips, raw):
    """A folder in another order, or with one file more, is another clip."""
    dataset = clips()
    folder = raw / "frames"
    folder.mkdir()
    clip = replace(dataset.clips[0], files={"frames": folder})
    (folder / "a.png").write_bytes(b"x")
    before = stat_of(clip)
    (folder / "._b.png").write_bytes(b"x")
    assert stat_of(clip) == before
    (folder / "b.png").write_bytes(b"x")
    assert stat_of(clip) != before
