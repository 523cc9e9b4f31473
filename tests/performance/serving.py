"""Print how fast and in how much memory prepared clips are served, against decoding each one as it is wanted.

    python tests/performance/serving.py [CLIPS]

The clips are made up in CREMA-D's format: wav of 1.5 to 4 s at 16 kHz, three jpg frames of 480 x 360 with the spectrum
of photographs. Rates are samples per second of CPU time, all threads counted, so other work on the machine matters
little; preparing is timed by the clock and wants idle cores. Memory is that of a fresh process after as many samples of
either set, without what its allocator has free.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from benchmark.datasets.cremad import CLASSES, CremaD
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmark.inputs.prepare import prepare
from benchmark.launch.launcher import ALLOCATOR
from benchmark.training import Feed

BATCH, ITEMS, LARGER = 64, 128, 20
ROUNDS = 3
MEMORY = ("VmRSS", "RssAnon", "VmHWM")
"""What the kernel says of a process: its memory now, without mapped files, and at its highest."""


def main(num_clips: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_clips(root / "cremad", num_clips)
        preparing(root)
        serving(root)
        memory(root, num_clips)


def preparing(root: Path) -> None:
    """Prepare with one process and with two, in turn."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    busy: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for jobs, times in seconds.items():
            shutil.rmtree(root / "cache", ignore_errors=True)
            os.environ["BENCH_CACHE"] = str(root / "cache")
            dataset = open_set(root / "cremad")
            began, before = time.perf_counter(), os.times()
            prepare(dataset, jobs, False)
            times.append(time.perf_counter() - began)
            busy[jobs].append(sum(os.times()[:4]) - sum(before[:4]))
    one, two = (min(times) / len(dataset.clips) for times in seconds.values())
    say(
        f"preparing: {1 / one:.0f} clips/s with one process, {1 / two:.0f} with two: {one / two / 2:.2f} of linear; "
        f"{min(busy[2]) / min(busy[1]):.2f} times the CPU time"
    )


def serving(root: Path) -> None:
    """Serve training batches from the store, and items as the literature's loaders do."""
    for frames in (3, 1):
        dataset = open_set(root / "cremad", frames)
        names = [clip.id for clip in dataset.clips]
        some = [names[i] for i in np.random.default_rng(0).permutation(len(names))[:ITEMS]]
        samples = dataset.load()
        feed = Feed(dataset, samples, torch.device("cpu"), BATCH)
        parts = np.array_split(np.arange(len(samples)), len(samples) // BATCH)
        loader = DataLoader(Items(root / "cremad", some, frames), BATCH, shuffle=True)
        item = best(partial(consume, iter, loader)) / len(some)
        batch = best(partial(consume, feed.shuffled, 0, 0)) / len(samples)
        reading = best(partial(consume, map, samples.take, parts)) / len(samples)
        say(
            f"serving, frames={frames}: {1 / item:.0f} samples/s item by item, {1 / batch:.0f} from the store: "
            f"{item / batch:.1f} times ({1e3 * item:.2f} and {1e3 * batch:.2f} ms a sample, {1e3 * reading:.2f} of "
            "the latter to read it)"
        )


def memory(root: Path, num_clips: int) -> None:
    """Compare the memory of some epochs with that of one over a set many times as large."""
    store = open_set(root / "cremad").store
    larger = repeat(store, root / "larger" / "cremad", LARGER * num_clips)
    found = {}
    for name, data in (("small", root / "cremad"), ("large", larger)):
        command = [sys.executable, __file__, "--memory", str(data), str(LARGER * num_clips)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout)
    for what in MEMORY:
        small, large = found["small"][what], found["large"][what]
        say(
            f"memory, {what}: {small / 1024:.0f} MiB with {num_clips:,} clips, {large / 1024:.0f} MiB with "
            f"{LARGER * num_clips:,}, {large / small - 1:+.1%}"
        )


def serve(root: Path, count: int) -> None:
    """Serve training batches until `count` samples are served, and write this process's memory, in KiB."""
    torch.set_num_threads(1)
    dataset = open_set(root)
    feed = Feed(dataset, dataset.load(), torch.device("cpu"), BATCH)
    for epoch in range(count // len(feed)):
        consume(feed.shuffled, 0, epoch)
    ctypes.CDLL(None).malloc_trim(0)
    lines = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    sys.stdout.write(json.dumps({name: int(value.split()[0]) for name, _, value in lines if name in MEMORY}))


def open_set(root: Path, frames: int = 3) -> CremaD:
    return CremaD(CremaD.Config(counts="any", frames=frames), root)


class Items(Dataset[tuple[Tensor, Tensor]]):
    """Training clips, each decoded when it is wanted, as the literature's loaders do."""

    def __init__(self, root: Path, names: list[str], frames: int) -> None:
        self._root, self._names, self._frames = root, names, frames

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        name = self._names[index]
        samples, _ = librosa.load(self._root / "AudioWAV" / f"{name}.wav", sr=22050)
        samples = np.clip(np.tile(samples, 3)[: 3 * 22050], -1, 1)
        spectrogram = np.log(np.abs(librosa.stft(samples, n_fft=512, hop_length=353)) + 1e-7)
        augment = transforms.Compose([
            transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ])  # fmt: skip
        files = sorted((self._root / "Image-01-FPS" / name).iterdir())[: self._frames]
        images = [augment(Image.open(file).convert("RGB")) for file in files]
        return torch.from_numpy(spectrogram), torch.stack(images, 1)


def consume(make: Callable[..., Iterable[object]], *arguments: object) -> None:
    for _ in make(*arguments):
        pass


def best(work: Callable[[], object]) -> float:
    """Return the least CPU time of some rounds, after one that does not count."""
    times = []
    for _ in range(1 + ROUNDS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times[1:])


def write_clips(root: Path, count: int) -> None:
    """Write a data set in CREMA-D's layout; pictures are drawn from a few dozen."""
    rng = np.random.default_rng(0)
    pictures = [jpeg(photograph(rng)) for _ in range(36)]
    write_lists(root, count)
    for number, name in enumerate(clip_names(count)):
        length = rng.integers(24_000, 64_001)
        soundfile.write(root / "AudioWAV" / f"{name}.wav", 0.1 * rng.standard_normal(length), 16_000, "PCM_16")
        (root / "Image-01-FPS" / name).mkdir()
        for second in range(3):
            file = root / "Image-01-FPS" / name / f"{29 * second:05d}.jpg"
            file.write_bytes(pictures[(3 * number + second) % len(pictures)])


def write_lists(root: Path, count: int) -> None:
    for folder in ("AudioWAV", "Image-01-FPS", "annotations"):
        (root / folder).mkdir(parents=True)
    lines = [f"{name},{name.split('_')[2]}\n" for name in clip_names(count)]
    for name, part in (("test", lines[: count // 10]), ("train", lines[count // 10 :])):
        (root / "annotations" / f"{name}.csv").write_text("".join(part))


def clip_names(count: int) -> list[str]:
    return [f"{1001 + i // 156}_A{chr(65 + i // 6 % 26)}A_{CLASSES[i % 6]}_XX" for i in range(count)]


def photograph(rng: np.random.Generator) -> Image.Image:
    """Draw a picture whose spectrum falls as 1/f, as those of photographs do."""
    down, right = np.fft.fftfreq(360)[:, None], np.fft.rfftfreq(480)[None]
    spectrum = np.fft.rfft2(rng.standard_normal((3, 360, 480))) / np.maximum(np.hypot(down, right), 1 / 480)
    pixels = np.fft.irfft2(spectrum, (360, 480))
    pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
    return Image.fromarray(np.moveaxis(pixels.clip(0, 255).astype(np.uint8), 0, 2))


def jpeg(picture: Image.Image) -> bytes:
    """Return the bytes of a jpg of OpenCV's default quality."""
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=95, subsampling=2)
    return buffer.getvalue()


def repeat(store: Path, root: Path, count: int) -> Path:
    """Write a data set of `count` clips whose store is another's, over and over; return its root."""
    write_lists(root, count)
    large = open_set(root).store
    large.mkdir()
    for shard in store.glob("[0-9]*"):
        (large / shard.name).symlink_to(shard)
    table = pq.read_table(store / "index.parquet")
    pq.write_table(pa.concat_tables([table] * (count // len(table))), large / "index.parquet")
    shutil.copy(store / "manifest.json", large)
    return root


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if not os.environ.keys() >= ALLOCATOR.keys():  # as workers have it from their start
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    if sys.argv[1:2] == ["--memory"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
