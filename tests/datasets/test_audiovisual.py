"""Sound and pictures from generated files of the true formats: equal to what the literature's loaders make of them."""

from __future__ import annotations

import shutil
from collections import Counter

import av
import librosa
import numpy as np
import pytest
import soundfile
import torch
from benchmark.datasets.cremad import CremaD
from benchmark.datasets.ksounds import KSounds
from PIL import Image

from benchmark.check import check_dataset
from benchmark.errors import UserError
from benchmark.inputs.prepare import prepare

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
NAMES = [f"{actor}_{sentence}_{emotion}_XX" for actor in (1001, 1002, 1003) for sentence in ("IEO", "TIE")
         for emotion in ("ANG", "HAP")]  # fmt: skip
SECONDS = np.linspace(1.3, 4.1, len(NAMES))
LEVEL = 1 / 255 / STD.min()
"""One step of a byte after normalisation."""


def waveform(seconds, rate, seed):
    """Noise and a tone, as loud as PCM allows."""
    rng = np.random.default_rng(seed)
    samples = 0.3 * rng.standard_normal(round(seconds * rate))
    samples += 0.7 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / rate)
    return samples.clip(-1, 1)


def picture(seed, height=360, width=480):
    """Smooth colours with some grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((width, height))
    return (np.asarray(coarse, np.int16) + rng.integers(-9, 10, (height, width, 3))).clip(0, 255).astype(np.uint8)


def write_container(path, seconds, fps, sizes, rate, codec):
    """Write a video with sound; return its frames as decoded by nobody yet."""
    height, width = sizes
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps)
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        audio = container.add_stream("aac", rate=rate)
        audio.layout = "mono"
        for number in range(round(seconds * fps)):
            grey = np.full((height, width, 3), 20 + 2 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(video.encode(None))
        samples = waveform(seconds, rate, 0).astype(np.float32)[None]
        for start in range(0, samples.shape[1], 1024):
            part = np.ascontiguousarray(samples[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """A small CREMA-D: wav of 16 kHz and 1.3 to 4.1 s, one jpg for each whole second, lists with a validation part."""
    root = tmp_path_factory.mktemp("data") / "cremad"
    for folder in ("AudioWAV", "annotations"):
        (root / folder).mkdir(parents=True)
    for seed, (name, seconds) in enumerate(zip(NAMES, SECONDS, strict=True)):
        soundfile.write(root / "AudioWAV" / f"{name}.wav", waveform(seconds, 16000, seed), 16000, "PCM_16")
        folder = root / "Image-01-FPS" / name
        folder.mkdir(parents=True)
        for number in range(int(seconds)):
            Image.fromarray(picture(10 * seed + number)).save(folder / f"{29 * number:05d}.jpg", quality=95)
    lines = [f"{name},{name.split('_')[2]}\n" for name in NAMES]
    for name, part in (("train", lines[:10]), ("test", lines[10:]), ("my_train", lines[:8]), ("val", lines[8:10])):
        (root / "annotations" / f"{name}.csv").write_text("".join(part))
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def copied(extracted, tmp_path):
    """A copy to damage."""
    return shutil.copytree(extracted, tmp_path / "data" / "cremad")


def open_set(root, kind=CremaD, canvas=(360, 480), **settings):
    """Return a data set whose frames are stored at the size of the clips here, unless another is given."""
    return kind(kind.Config(counts="any", canvas=canvas, **settings), root)


def prepared(root, kind=CremaD, **settings):
    dataset = open_set(root, kind, **settings)
    prepare(dataset, 1, False)
    return dataset


def served(dataset, draws=None):
    samples = dataset.load()
    return samples, dataset.transform(samples.take(np.arange(len(samples))), draws)


def reference_spectrogram(path, rate, seconds, num_fft, hop):
    """What the literature's loaders do to a clip's sound."""
    samples, _ = librosa.load(path, sr=rate)
    samples = np.tile(samples, int(np.ceil(seconds * rate / len(samples))))[: round(seconds * rate)]
    return np.log(np.abs(librosa.stft(np.clip(samples, -1, 1), n_fft=num_fft, hop_length=hop)) + 1e-7)


def resized(image, size, box=None):
    """A picture as Pillow resizes it in floating point, or a box of it, normalised: (3, size, size)."""
    planes = [Image.fromarray(plane.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR, box=box)
              for plane in np.moveaxis(np.asarray(image), 2, 0)]  # fmt: skip
    return (np.stack(planes) / 255 - MEAN[:, None, None]) / STD[:, None, None]


@pytest.mark.full
@pytest.mark.parametrize(
    ("settings", "columns"),
    [({}, 188), ({"seconds": 20.0}, 1250), ({"rate": 16000, "num_fft": 256, "hop": 128}, 376)],
)
def test_spectrograms_are_those_of_the_literatures_loaders(extracted, settings, columns):
    dataset = prepared(extracted, **settings)
    samples, inputs = served(dataset)
    config = dataset.config
    assert inputs["audio"].shape == (12, *dataset.task.modalities["audio"].shape)
    assert inputs["audio"].shape[2:] == (config.num_fft // 2 + 1, columns)
    for name, x in zip(samples.ids, inputs["audio"], strict=True):
        path = extracted / "AudioWAV" / f"{name}.wav"
        expected = reference_spectrogram(path, config.rate, config.seconds, config.num_fft, config.hop)
        np.testing.assert_allclose(x[0].exp(), np.exp(expected), atol=1e-4, rtol=1e-4)
        sounding = expected > np.log(0.1)  # single precision leaves less of the logarithm of what is next to nothing
        assert sounding.mean() > 0.9
        np.testing.assert_allclose(x[0][sounding], expected[sounding], atol=1e-4)


def test_whole_frames_are_those_of_pillow(extracted):
    dataset = prepared(extracted, frames=2)
    samples, inputs = served(dataset)
    assert inputs["video"].shape == (12, 3, 2, 224, 224)
    for name, x in zip(samples.ids, inputs["video"], strict=True):
        files = sorted((extracted / "Image-01-FPS" / name).iterdir())
        for file, frame in zip((files[len(files) // 4], files[3 * len(files) // 4]), x.transpose(0, 1), strict=True):
            image = Image.open(file).convert("RGB")
            np.testing.assert_allclose(frame, resized(image, 224), atol=1e-4)
            rounded = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR), np.float32) / 255
            np.testing.assert_allclose(frame, np.moveaxis((rounded - MEAN) / STD, 2, 0), atol=LEVEL)


def test_training_crops_one_box_out_of_all_frames_of_a_clip(extracted):
    dataset = prepared(extracted, frames=3)
    draws = torch.rand(12, dataset.num_draws, generator=torch.Generator().manual_seed(0))
    _, inputs = served(dataset, draws)
    whole = dataset.load().take(np.arange(12))["video"]
    boxes = Counter()
    for row, x in enumerate(inputs["video"]):
        flat = x.flip(3) if draws[row, 1] < 0.5 else x
        top, left, height, width = only_box(dataset, whole[row : row + 1], draws[row : row + 1])
        boxes[height, width] += 1
        for frame, pixels in zip(flat.transpose(0, 1), whole[row], strict=True):
            expected = resized(pixels.numpy(), 224, (left, top, left + width, top + height))
            np.testing.assert_allclose(frame[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=2 * LEVEL)
    assert len(boxes) > 6


def only_box(dataset, frames, draws):
    """Find the box that was cut: from crops of pictures that say where each pixel is."""
    height, width = frames.shape[2:4]
    from benchmark.inputs.transforms import random_boxes

    (box,) = random_boxes(draws[:, 2:], height, width)
    down = torch.arange(height).float()[:, None].expand(height, width) * 255 / height
    right = torch.arange(width).float()[None].expand(height, width) * 255 / width
    map_ = torch.stack((down, right, right), 2).round().to(torch.uint8)[None, None]
    seen = dataset.transform({"audio": torch.zeros(1, 66150), "video": map_}, draws)["video"][0, :, 0]
    places = seen * torch.from_numpy(STD)[:, None, None] + torch.from_numpy(MEAN)[:, None, None]
    top, left, tall, wide = box
    assert places[0].mean() * height == pytest.approx(top + tall / 2, abs=2)
    assert places[1].mean() * width == pytest.approx(left + wide / 2, abs=2)
    return box


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("settings", [{}, {"frames": 1, "excerpt": 2.0, "size": 96}])
def test_a_clip_alone_is_served_bit_for_bit_as_in_a_batch(extracted, settings, training):
    dataset = prepared(extracted, **settings)
    draws = torch.rand(12, dataset.num_draws, generator=torch.Generator().manual_seed(1)) if training else None
    samples, whole = served(dataset, draws)
    for row in range(12):
        alone = dataset.transform(samples.take(np.array([row])), None if draws is None else draws[row : row + 1])
        for modality, x in alone.items():
            assert torch.equal(x[0], whole[modality][row])


def test_the_first_frames_are_taken_when_asked_for(extracted):
    dataset = prepared(extracted, frames=2, frame_choice="first")
    samples = dataset.load()
    for name, frames in zip(samples.ids, samples.take(np.arange(12))["video"], strict=True):
        files = sorted((extracted / "Image-01-FPS" / name).iterdir())
        for file, frame in zip((files[0], files[min(1, len(files) - 1)]), frames, strict=True):
            assert np.array_equal(frame, np.asarray(Image.open(file).convert("RGB"))), "stored without loss"


def test_an_excerpt_is_the_middle_or_where_the_draw_says(extracted):
    whole, part = prepared(extracted, hop=353), prepared(extracted, excerpt=1.0)
    assert part.task.modalities["audio"].shape == (1, 257, 1 + 22050 // 353)
    samples = part.load()
    raw = samples.take(np.arange(12))
    for clip, x in zip(part.clips, raw["audio"], strict=True):
        waveform, _ = librosa.load(clip.files["audio"], sr=22050)
        assert np.array_equal(x, np.resize(waveform.clip(-1, 1), 66150))
    middle = part.transform(raw, None)["audio"]
    draws = torch.full((12, part.num_draws), 0.5)
    assert torch.equal(part.transform(raw, draws)["audio"], middle)
    draws[:, 0] = 0
    first = part.transform(raw, draws)["audio"]
    assert torch.equal(first[..., 1:61], served(whole)[1]["audio"][..., 1:61])
    assert part.store != whole.store


def test_frames_are_stored_on_the_canvas_as_pillow_resizes_them(extracted):
    dataset = prepared(extracted, canvas=(256, 340), frames=1, frame_choice="first")
    samples = dataset.load()
    for name, frames in zip(samples.ids, samples.take(np.arange(12))["video"], strict=True):
        file = min((extracted / "Image-01-FPS" / name).iterdir())
        expected = Image.open(file).convert("RGB").resize((340, 256), Image.Resampling.BILINEAR)
        assert np.array_equal(frames[0], np.asarray(expected))


def test_fewer_frames_are_stored_and_the_choice_then_counts(extracted):
    spread, first = (prepared(extracted, frames=1, max_frames=1, frame_choice=c) for c in ("spread", "first"))
    assert spread.store != first.store
    files = sorted((extracted / "Image-01-FPS" / NAMES[-1]).iterdir())
    assert len(files) == 4
    for dataset, file in ((spread, files[2]), (first, files[0])):
        frames = dataset.load().take(np.array([11]))["video"]
        assert np.array_equal(frames[0, 0], np.asarray(Image.open(file).convert("RGB")))


@pytest.mark.parametrize(("kind", "suffix", "codec"), [(CremaD, "flv", "flv1"), (KSounds, "mp4", "mpeg4")])
def test_without_extracted_files_sound_and_frames_come_from_the_video(tmp_path, kind, suffix, codec):
    if kind is CremaD:
        lists = {"annotations/train.csv": "1001_IEO_ANG_XX,ANG\n", "annotations/test.csv": "1002_IEO_HAP_XX,HAP\n"}
        videos = ["VideoFlash/1001_IEO_ANG_XX", "VideoFlash/1002_IEO_HAP_XX"]
    else:
        lists = {"my_train.txt": "0123456789a_000001_000011,10,0\n", "my_test.txt": "0123456789b_4,10,1\n"}
        videos = ["train/0123456789a_000001_000011", "test/0123456789b_000004_000014"]
    for name, text in lists.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in videos:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_container(tmp_path / f"{name}.{suffix}", 2.6, 30, (360, 480), 22050, codec)
    dataset = prepared(tmp_path, kind, rate=22050, frames=3, excerpt=2.0)
    samples = dataset.load()
    inputs = samples.take(np.arange(2))
    assert inputs["video"].shape[1:] == (3, *dataset.config.canvas, 3)
    for frames in inputs["video"].float():
        expected = torch.tensor([20 + 2 * 30 * number for number in range(3)])  # every 30th, each brighter
        torch.testing.assert_close(frames.mean((1, 2, 3)), expected.float(), atol=2, rtol=0)
    for path, x in zip(videos, inputs["audio"], strict=True):
        expected, _ = librosa.load(pull_sound(tmp_path / f"{path}.{suffix}", tmp_path), sr=22050)
        assert np.array_equal(x[: len(expected)], expected.clip(-1, 1))
        assert np.array_equal(x[len(expected) : 2 * len(expected)], x[: len(x[len(expected) : 2 * len(expected)])])


def pull_sound(path, folder):
    """Write a container's sound as wav."""
    with av.open(str(path)) as container:
        parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    soundfile.write(folder / "sound.wav", np.concatenate(parts), 22050, "FLOAT")
    return folder / "sound.wav"


def test_frames_of_another_size_are_resized_as_pillow_does(copied):
    small = picture(5, 240, 320)
    file = copied / "Image-01-FPS" / NAMES[0] / "00000.jpg"
    Image.fromarray(small).save(file, quality=95)
    frames = prepared(copied).load().take(np.array([0]))["video"]
    expected = Image.open(file).convert("RGB").resize((480, 360), Image.Resampling.BILINEAR)
    assert np.array_equal(frames[0, 0], np.asarray(expected))


def test_damaged_clips_are_named_with_file_and_reason(copied):
    wav, pictures = copied / "AudioWAV", copied / "Image-01-FPS"
    (wav / f"{NAMES[0]}.wav").write_bytes((wav / f"{NAMES[0]}.wav").read_bytes()[:1000])
    (pictures / NAMES[4] / "00000.jpg").write_bytes(b"")
    (wav / f"{NAMES[2]}.wav").unlink()
    shutil.rmtree(pictures / NAMES[3])
    for file in (pictures / NAMES[5]).iterdir():
        file.rename(file.with_suffix(".txt"))
    dataset = open_set(copied)
    reasons = {clip["id"]: clip["reason"] for clip in prepare(dataset, 1, False).failed}
    assert set(reasons) == {NAMES[i] for i in (0, 2, 3, 4, 5)}
    assert reasons[NAMES[0]].startswith(f"{NAMES[0]}.wav: truncated")
    assert reasons[NAMES[4]] == f"{NAMES[4]}: 00000.jpg: empty file"
    assert reasons[NAMES[2]] == f"no file {wav / NAMES[2]}.wav"
    assert reasons[NAMES[3]] == f"no file {pictures / NAMES[3]}"
    assert reasons[NAMES[5]] == f"{NAMES[5]}: no pictures"
    with pytest.raises(UserError, match="5 missing or damaged"):
        open_set(copied).load()


def test_a_frame_that_is_added_or_changes_is_decoded_again(copied):
    assert prepare(open_set(copied), 1, False).num_decoded == 12
    assert prepare(open_set(copied), 1, False).num_decoded == 0
    folder = copied / "Image-01-FPS" / NAMES[9]
    shutil.copy(folder / "00000.jpg", folder / "99999.jpg")
    before = open_set(copied).fingerprint()
    assert prepare(open_set(copied), 1, False).num_decoded == 4  # the second shard's
    assert open_set(copied).fingerprint() != before


def test_actors_are_kept_apart_on_prepared_clips(extracted):
    dataset = prepared(extracted, split="actor")
    assert {clip.group for clip in dataset.clips} == {"1001", "1002", "1003"}
    assert prepared(extracted).fingerprint() == dataset.fingerprint(), "one store for both splits"


def test_keeps_the_contract_of_data_sets(extracted):
    prepared(extracted, canvas=(256, 340))
    results = list(check_dataset("cremad[counts=any]", extracted.parent))
    assert not [result for result in results if result.failed]


@pytest.mark.full
def test_two_epochs_of_training(extracted, trainer):
    dataset = prepared(extracted, frames=2, size=64, encoders={"audio": {"kind": "conv"}})
    histories = []
    for _ in range(2):
        run = trainer("concat", dataset=dataset, epochs=2, batch_size=4)
        histories.append([run.run_epoch()[0] for _ in range(2)])
    assert histories[0] == histories[1]


@pytest.mark.full
def test_from_the_command_line(bench, extracted, tmp_path):
    environment = {"BENCH_CACHE": str(tmp_path / "cache"), "BENCH_DATA": str(extracted.parent)}
    done = bench("data", "prepare", "cremad[counts=any]", "--jobs", 2, "--json", env=environment)
    assert (done.rc, done.json["num_decoded"]) == (0, 12)
    shown = bench("data", "check", "cremad[counts=any]", "--json", env=environment)
    assert shown.rc == 0, shown.said
    counts = {part: sum(classes.values()) for part, classes in shown.json["counts"].items()}
    assert counts == {"train": 8, "valid": 2, "test": 2}
    verdicts = {finding["name"]: finding["verdict"] for finding in shown.json["findings"]}
    assert verdicts["files"] == verdicts["prepared"] == "ok"
    assert verdicts["overlap: actor"] == "ok", "the third actor only validates and is tested"
