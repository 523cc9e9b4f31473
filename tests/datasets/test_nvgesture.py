"""NVGesture: official windows and split, three modalities in step, flow from files or RAFT, and real clips."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from benchmark.datasets import nvgesture
from benchmark.datasets.nvgesture import CLASSES, NvGesture
from PIL import Image
from torchvision.models.optical_flow import raft_small

from benchmark.check import check_dataset
from benchmark.errors import UserError
from benchmark.inputs.prepare import prepare

DATA = Path(os.environ.get("BENCH_DATA", "nowhere"))
needs_data = pytest.mark.data("nvgesture")
TRAIN, TEST = "nvgesture_train_correct_cvpr2016_v2.lst", "nvgesture_test_correct_cvpr2016_v2.lst"
STORED, SIZE = 36, 32
LAST = 1 - 2**-24
"""The largest number that torch.rand gives."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small(monkeypatch):
    """Frames of 36 and crops of 32 pixels."""
    monkeypatch.setattr(nvgesture, "STORED", STORED)
    monkeypatch.setattr(nvgesture, "SIZE", SIZE)


def line_of(label, subject, start):
    window = f"{start}:{start + 80}"
    streams = f"depth:sk_depth:{window} color:sk_color:{window} duo_left:duo_left:{start + 20}:{start + 113}"
    return f"path:./Video_data/class_{label:02d}/subject{subject}_r0 {streams} label:{label} "


TRAIN_LINES = [line_of(label, subject, 5 * label) for subject in (1, 2, 3) for label in (1, 2)]
TEST_LINES = [line_of(label, 5, label) for label in (1, 2)]
NAMES = [f"class_{label:02d}/subject{subject}_r0" for subject in (1, 2, 3, 5) for label in (1, 2)]


def write_video(path, frames, pixel_format):
    """Write frames (T, H, W, 3) without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def frames_of(name, stream):
    """The frames of a made-up clip, (100, 30, 40, 3)."""
    draw = np.random.default_rng([NAMES.index(name), stream == "depth"])
    noise = draw.integers(0, 256, (100, 30, 40, 3), dtype=np.uint8)
    return np.repeat(noise[..., :1], 3, axis=3) if stream == "depth" else noise


def flow_of(number, frames=79):
    """The content of a file of flow."""
    draw = np.random.default_rng(number)
    return draw.normal(0, 15, (STORED, STORED, 2, frames)).astype(np.float32)


@pytest.fixture
def made_up(tmp_path, small):
    """Six clips of train and two of test with their flow, in the official layout."""
    root = tmp_path / "nvgesture"
    for name in NAMES:
        folder = root / "Video_data" / name
        folder.mkdir(parents=True)
        write_video(folder / "sk_color.avi", frames_of(name, "color"), "bgr0")
        write_video(folder / "sk_depth.avi", frames_of(name, "depth"), "bgr0")
    for part, count in (("train", 6), ("test", 2)):
        (root / "Video_data" / "flow_data" / part).mkdir(parents=True)
        for number in range(count):
            np.save(root / "Video_data" / "flow_data" / part / f"{number}.npy", flow_of(number + (part == "test") * 6))
    (root / TRAIN).write_text("\n".join(TRAIN_LINES))
    (root / TEST).write_text("\n".join(TEST_LINES))
    return root


def dataset_at(root, **config):
    return NvGesture(NvGesture.Config(counts="any", **config), root)


def prepared(root, jobs=1, **config):
    dataset = dataset_at(root, **config)
    assert not prepare(dataset, jobs, False).failed
    return dataset


def reasons_of(root, **config):
    return {clip["id"]: clip["reason"] for clip in prepare(dataset_at(root, **config), 1, False).failed}


@pytest.fixture(scope="module")
def raft(tmp_path_factory):
    """The settings of a small RAFT with random weights."""
    path = tmp_path_factory.mktemp("weights") / "raft.pth"
    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), path)
    return {"size": "small", "weights": str(path), "num_updates": 1}


@needs_data
def test_the_second_source_has_the_published_clips_subjects_and_windows():
    clips = NvGesture(NvGesture.Config(), DATA / "nvgesture").clips
    counts = {part: Counter(clip.label for clip in clips if clip.part == part) for part in ("train", "test")}
    assert {part: sum(found.values()) for part, found in counts.items()} == {"train": 1050, "test": 482}
    assert {part: (len(n), min(n.values()), max(n.values())) for part, n in counts.items()} == {
        "train": (25, 36, 50),
        "test": (25, 15, 22),
    }
    subjects = {part: {clip.group for clip in clips if clip.part == part} for part in ("train", "test")}
    assert {part: len(names) for part, names in subjects.items()} == {"train": 12, "test": 6}
    assert not subjects["train"] & subjects["test"]
    assert all(end - start == 80 for clip in clips for start, end in clip.facts.values())
    corrected = [clip.part for clip in clips if not clip.id.startswith(f"class_{clip.label + 1:02d}/")]
    assert Counter(corrected) == {"train": 15, "test": 8}


@needs_data
def test_the_official_form_agrees_with_the_second_source(tmp_path):
    text = (DATA / "nvgesture" / "nvgesture_train_correct_cvpr2016_v2_mini.lst").read_text()
    (tmp_path / TRAIN).write_text(text)
    (tmp_path / TEST).write_text("\n".join(TEST_LINES))
    known = {clip.id: clip for clip in NvGesture(NvGesture.Config(), DATA / "nvgesture").clips}
    clips = [clip for clip in dataset_at(tmp_path).clips if clip.part == "train"]
    assert len(clips) == len(text.splitlines()) == 50
    for clip in clips:
        other = known[clip.id]
        assert (clip.label, clip.group, clip.facts["color"], clip.part) == (
            other.label, other.group, other.facts["color"], other.part,
        )  # fmt: skip


def test_clips_are_the_lists_in_order_with_labels_counted_from_the_official_one(made_up):
    clips = dataset_at(made_up).clips
    assert [clip.id for clip in clips] == NAMES
    assert [clip.label for clip in clips] == [0, 1] * 4
    assert [clip.group for clip in clips] == [f"subject{i}" for i in (1, 1, 2, 2, 3, 3, 5, 5)]
    assert clips[7].files["flow"] == made_up / "Video_data" / "flow_data" / "test" / "1.npy"
    assert len(CLASSES) == len(set(CLASSES)) == 25


@pytest.mark.parametrize("version", ["v2", "second source"])
def test_lists_under_other_names_and_of_the_other_form_name_the_same_clips(made_up, version):
    official = dataset_at(made_up).clips
    if version == "v2":
        for part in ("train", "test"):
            (made_up / f"nvgesture_{part}_correct_cvpr2016_v2.lst").rename(made_up / f"nvgesture_{part}_correct_v2.lst")
        assert dataset_at(made_up).clips == official
        return
    (made_up / "annotations").mkdir()
    for part, name in (("train", "trainlistall_but_None"), ("test", "vallistall_but_None")):
        clips = [clip for clip in official if clip.part == part]
        lines = [
            f"./Video_data/{c.id}/sk_color_all {c.label + 1} {c.facts['color'][0]} {c.facts['color'][1]}" for c in clips
        ]
        (made_up / "annotations" / f"{name}.txt").write_text("\n".join(lines))
        (made_up / f"nvgesture_{part}_correct_cvpr2016_v2.lst").unlink()
    with pytest.raises(UserError, match=r"the \.lst lists, whose lines number the files of Video_data/flow_data"):
        _ = dataset_at(made_up).clips
    (made_up / "Video_data" / "flow_data").rename(made_up / "flow_data")
    for clip, other in zip(dataset_at(made_up).clips, official, strict=True):
        assert (clip.id, clip.label, clip.part, clip.facts) == (other.id, other.label, other.part, other.facts)
        assert set(clip.files) == {"color", "depth"}


def test_what_is_stored_is_the_window_of_each_video_and_the_file_of_flow(made_up):
    dataset = prepared(made_up)
    samples = dataset.load()
    inputs = samples.take(np.arange(8))
    for i, (clip, name) in enumerate(zip(dataset.clips, NAMES, strict=True)):
        start, _ = clip.facts["color"]
        for modality, stream in (("rgb", "color"), ("depth", "depth")):
            for t in (0, 33, 79):
                frame = Image.fromarray(frames_of(name, stream)[start + t])
                expected = np.asarray(frame.resize((STORED, STORED), Image.Resampling.BILINEAR))
                channels = 3 if modality == "rgb" else 1
                assert np.array_equal(inputs[modality][i, t], expected[..., :channels])
        expected = flow_of(i).transpose(3, 0, 1, 2)
        expected = np.concatenate([expected, expected[-1:]])
        np.testing.assert_allclose(inputs["flow"][i], expected, rtol=1e-3, atol=1e-4)


def test_validation_shares_no_subject_with_train(made_up):
    dataset = prepared(made_up)
    samples = dataset.load()
    split = dataset.split(samples, 0.15)
    subjects = [{dataset.clips[i].group for i in part} for part in (split.train, split.valid, split.test)]
    assert [len(names) for names in subjects] == [2, 1, 1]
    assert not any(one & other for one, other in itertools.combinations(subjects, 2))


@pytest.mark.parametrize("scaling", ["kinetics", "published"])
def test_evaluation_sees_all_frames_of_the_middle(made_up, scaling):
    dataset = prepared(made_up, scaling=scaling)
    raw = dataset.load().take(np.arange(3))
    out = dataset.transform(raw, None)
    rgb, flow, depth = (raw[m].numpy()[:, :, 2:34, 2:34].astype(np.float64) for m in ("rgb", "flow", "depth"))
    if scaling == "kinetics":
        expected = {"rgb": rgb / 127.5 - 1, "flow": np.clip(flow, -20, 20) / 20, "depth": depth / 127.5 - 1}
    else:
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        expected = {"rgb": (rgb[..., ::-1] / 255 - mean) / std, "flow": flow, "depth": depth / 255}
    for modality, x in expected.items():
        assert tuple(out[modality].shape[1:]) == dataset.task.modalities[modality].shape
        np.testing.assert_allclose(out[modality].permute(0, 2, 3, 4, 1), x, atol=1e-4)


def telling(count):
    """Inputs whose values tell time, row and column of each pixel, in units that every modality can hold."""
    time, row, column = (torch.arange(n) for n in (80, STORED, STORED))
    places = [time[:, None, None].expand(80, STORED, STORED), row[:, None].expand(80, STORED, STORED),
              column.expand(80, STORED, STORED)]  # fmt: skip
    rgb = torch.stack(places, 3).to(torch.uint8).expand(count, 80, STORED, STORED, 3)
    depth = rgb[..., :1]
    flow = torch.stack(places[1:], 3).half().expand(count, 80, STORED, STORED, 2)
    return {"rgb": rgb, "flow": flow, "depth": depth}


def seen(out):
    """Where the crops of `telling` begin: (time by rgb, time by depth, row by rgb and flow, column by rgb and flow)."""
    rgb = ((out["rgb"] + 1) * 127.5).round().long()
    depth = ((out["depth"] + 1) * 127.5).round().long()
    flow = (out["flow"] * 20).round().long()
    return [
        (
            int(rgb[i, 0].min()), int(depth[i, 0].min()), int(rgb[i, 1].min()), int(flow[i, 0].min()),
            int(rgb[i, 2].min()), int(flow[i, 1].min()),
        )
        for i in range(len(rgb))
    ]  # fmt: skip


def test_training_cuts_one_window_and_one_crop_out_of_all_modalities(small):
    dataset = dataset_at(None)
    draws = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    draws[0], draws[1] = 0.0, LAST
    out = dataset.transform(telling(40), draws)
    assert {m: x.shape[1:] for m, x in out.items()} == {
        "rgb": (3, 64, SIZE, SIZE), "flow": (2, 64, SIZE, SIZE), "depth": (1, 64, SIZE, SIZE),
    }  # fmt: skip
    begins = seen(out)
    assert begins[0] == (0, 0, 0, 0, 0, 0)
    assert begins[1] == (16, 16, 4, 4, 4, 4)
    for time, time_too, top, top_too, left, left_too in begins:
        assert (time, top, left) == (time_too, top_too, left_too)
    times, tops, lefts = (Counter(begin[k] for begin in begins) for k in (0, 2, 4))
    assert len(times) > 10
    assert set(tops) == set(lefts) == {0, 1, 2, 3, 4}
    span = ((out["rgb"][:, 0, -1, 0, 0] - out["rgb"][:, 0, 0, 0, 0]) * 127.5).round()
    assert (span == 63).all()


def test_flow_is_cut_with_the_window_unless_it_is_to_be_out_of_step(small):
    inputs = telling(5)
    time = torch.arange(80, dtype=torch.float16)[:, None, None, None] / 8
    inputs["flow"] = time.expand(5, 80, STORED, STORED, 2)
    draws = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    starts = (draws[:, 0] * 17).long()
    cut = dataset_at(None).transform(inputs, draws)["flow"]
    whole = dataset_at(None, flow_window="whole").transform(inputs, draws)
    assert torch.equal((cut[:, 0, 0, 0, 0] * 160).round().long(), starts)
    assert whole["flow"].shape == (5, 2, 80, SIZE, SIZE)
    assert whole["rgb"].shape == (5, 3, 64, SIZE, SIZE)
    assert (whole["flow"][:, 0, 0] == 0).all()


@pytest.mark.full
def test_it_keeps_the_contract_of_a_data_set(made_up):
    prepared(made_up)
    results = list(check_dataset("nvgesture[counts=any,train_frames=80]", made_up.parent))
    assert not [result for result in results if result.failed]
    assert len(results) > 5


def test_each_clip_is_cut_by_itself_alike_alone_and_in_a_batch(made_up):
    dataset = prepared(made_up)
    inputs = dataset.load().take(np.arange(4))
    draws = torch.rand(4, 3, generator=torch.Generator().manual_seed(2))
    whole = dataset.transform(inputs, draws)
    for i in range(4):
        alone = dataset.transform({m: x[i : i + 1] for m, x in inputs.items()}, draws[i : i + 1])
        assert all(torch.equal(x[0], whole[m][i]) for m, x in alone.items())


@pytest.mark.full
def test_concat_trains_two_epochs_of_inception_on_it(made_up, trainer):
    train = trainer(dataset=prepared(made_up), epochs=2, batch_size=4)
    before = [parameter.detach().clone() for parameter in train.method.net.parameters()]
    scores = [train.run_epoch()[0] for _ in range(2)]
    assert np.isfinite([epoch["train"]["loss"] for epoch in scores]).all()
    changed = [not torch.equal(*pair) for pair in zip(before, train.method.net.parameters(), strict=True)]
    assert all(changed)


def test_settings_of_training_need_no_second_store(made_up):
    first = dataset_at(made_up).store
    assert dataset_at(made_up, scaling="published", flow_window="whole", train_frames=32).store == first


@pytest.mark.full
def test_without_files_of_flow_raft_computes_it_from_the_stored_frames(made_up, raft):
    with_files = dataset_at(made_up).store
    (made_up / "Video_data" / "flow_data").rename(made_up / "flow_data")
    (made_up / TRAIN).write_text(TRAIN_LINES[0])
    (made_up / TEST).write_text(TEST_LINES[0])
    dataset = prepared(made_up, raft=raft)
    assert dataset.store not in (with_files, dataset_at(made_up, raft={**raft, "num_updates": 2}).store)
    inputs = dataset.load().take(np.array([1]))
    flow = inputs["flow"][0].permute(0, 3, 1, 2)
    config = dataset.config.raft
    expected = config.flow(config.build(torch.device("cpu")), inputs["rgb"][0].numpy())
    assert expected.shape == (79, 2, STORED, STORED)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(flow[:79], expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(flow[79], flow[78])


def test_weights_of_raft_that_are_not_there_are_named_before_anything_is_decoded(made_up, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (made_up / "Video_data" / "flow_data").rename(made_up / "flow_data")
    with pytest.raises(UserError, match=r"raft_large_C_T_SKHT_V2-ff5fadd5\.pth"):
        prepare(dataset_at(made_up), 1, False)


def test_damaged_clips_are_listed_with_their_reason(made_up):
    video, flow = made_up / "Video_data", made_up / "Video_data" / "flow_data"
    write_video(video / NAMES[0] / "sk_color.avi", frames_of(NAMES[0], "color")[:84], "bgr0")  # it ends at 85
    (video / NAMES[1] / "sk_depth.avi").write_bytes(b"")
    (video / NAMES[2] / "sk_color.avi").unlink()
    np.save(flow / "train" / "3.npy", flow_of(3)[:, :, :, :40])
    (flow / "train" / "4.npy").write_bytes((flow / "train" / "4.npy").read_bytes()[:5000])
    np.save(flow / "train" / "5.npy", np.array([{"code": "run"}], dtype=object))
    np.save(flow / "test" / "0.npy", np.full((STORED, STORED, 2, 80), np.nan, np.float32))
    (flow / "test" / "1.npy").unlink()
    reasons = reasons_of(made_up)
    assert set(reasons) == set(NAMES)
    for name, part in zip(
        NAMES,
        ("ends early: 84 frames", "empty file", "no file", "got float32 (36, 36, 2, 40)", "no array of numpy",
         "no array of numpy", "not finite", "1.npy"),
        strict=True,
    ):  # fmt: skip
        assert part in reasons[name], (name, reasons[name])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("path:./Video_data/class_01/subject3_r0 label:1", r"line 7: expected a line such as 'path:\./Video_data"),
        (line_of(1, 4, 5).replace("./Video", "../Video"), r"line 7: expected a line such as"),
        (line_of(1, 4, 5).replace("class_01", "/etc"), r"line 7: expected a line such as"),
        (line_of(1, 4, 5).replace("label:1", "label:26"), r"line 7: expected a label, got '26'"),
        (line_of(1, 4, 5).replace("sk_color:5:85", "sk_color:5:84"), r"line 7: expected 80 frames of color, got 79"),
        (TRAIN_LINES[0], r"line 7: expected another id, got 'class_01/subject1_r0' again"),
        (TEST_LINES[0], r"test_.*\.lst, line 1: expected another id, got 'class_01/subject5_r0' again"),
    ],
)
def test_mistakes_of_a_list_are_named_with_their_line(made_up, line, message):
    (made_up / TRAIN).write_text("\n".join([*TRAIN_LINES, line]))
    with pytest.raises(UserError, match=message):
        _ = dataset_at(made_up).clips


def test_other_counts_than_the_published_are_refused_unless_allowed(made_up):
    with pytest.raises(UserError, match=r"expected 1,050 train clips, got 6") as raised:
        _ = NvGesture(NvGesture.Config(), made_up).clips
    assert len(raised.value.problems) == 2


def test_missing_lists_are_named_with_where_to_get_them(tmp_path):
    for root in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"Get NVGesture from NVIDIA Research.*Video_data/.*annotations/"):
            _ = dataset_at(root).clips


@needs_data
@pytest.mark.full
def test_real_clips_are_prepared_with_flow_by_raft(tmp_path, monkeypatch, raft):
    """Their colour is at hand as registered to depth, `sk_wrapped.avi`, and stands in for `sk_color.avi`."""
    monkeypatch.setattr(nvgesture, "STORED", 128)
    monkeypatch.setattr(nvgesture, "SIZE", 112)
    root, parts = tmp_path / "nvgesture", defaultdict(list)
    for number, line in enumerate(sorted((DATA / "nvgesture" / "annotations").glob("trainlist*"))[0].open()):
        source = DATA / "nvgesture" / Path(line.split()[0]).parent
        if (source / "sk_wrapped.avi").is_file():
            place = root / source.relative_to(DATA / "nvgesture")
            place.mkdir(parents=True)
            (place / "sk_color.avi").symlink_to(source / "sk_wrapped.avi")
            (place / "sk_depth.avi").symlink_to(source / "sk_depth.avi")
            parts["train" if number % 2 else "val"].append(line)
    (root / "annotations").mkdir()
    for part, lines in parts.items():
        (root / "annotations" / f"{part}listall_but_None.txt").write_text("".join(lines))
    assert sum(map(len, parts.values())) == 5
    dataset = prepared(root, jobs=2, raft=raft)
    samples = dataset.load()
    inputs = samples.take(np.arange(5))
    for i, clip in enumerate(dataset.clips):
        start, end = clip.facts["color"]
        with av.open(str(clip.files["color"])) as container:
            frames = [frame.to_image() for frame in container.decode(video=0)]
        for t in (0, 40, 79):
            expected = frames[start + t].resize((128, 128), Image.Resampling.BILINEAR)
            assert np.abs(inputs["rgb"][i, t].numpy().astype(int) - np.asarray(expected)).max() <= 1
        assert end <= len(frames)
    assert inputs["flow"].float().abs().amax((1, 2, 3, 4)).min() > 0
    assert (inputs["depth"] > 30).float().mean((1, 2, 3, 4)).min() > 0.01
    out = dataset.transform(inputs, torch.rand(5, 3))
    assert all(torch.isfinite(x).all() for x in out.values())
