"""How fast is training on the device, and what holds it up?"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from gpu.report import Setting
from gpu.shapes import (
    BARE,
    BF16,
    FP32,
    FRAMES,
    FREE,
    METHODS_MEASURED,
    TF32,
    Mode,
    Recipe,
    batch_size,
    cremad_task,
    flops_of,
    ready,
    seconds_of,
    wait,
)
from gpu.waiting import WAITS
from torch import nn
from torch.nn import functional as F

from benchmark.check import synthetic
from benchmark.registry import DATASETS, METHODS
from benchmark.settings import parse_settings
from benchmark.train.trainer import Trainer, build_method, load_feeds

NA = "n/a on cpu"
TERA = 1e12


@contextmanager
def attempt(setting: Setting, name: str) -> Iterator[None]:
    """Note a measurement that raises as wrong, with what it said, and go on to the next."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  whatever a card or a compiler raises is the finding
        traceback.print_exc()
        setting.note(name, "failed", ok=False, remark=f"{type(error).__name__}: {error}"[:300])


# --- the card ---------------------------------------------------------------------------------------------------------


def measure_card(setting: Setting) -> None:
    """Measure the rates of large matrix products and of a convolution of ResNet18's, for comparison."""
    if setting.on_gpu:
        card = torch.cuda.get_device_properties(0)
        setting.note(
            "card", card.name, remark=f"{card.total_memory / 2**30:.0f} GiB, compute {card.major}.{card.minor}"
        )
    setting.note("torch", torch.__version__, remark=f"cuDNN {torch.backends.cudnn.version()}" * setting.on_gpu)
    rates: dict[str, float] = {}
    for mode in (FP32, TF32, BF16):
        for kind, measure in {"matmul": matmul_rate, "convolution": convolution_rate}.items():
            name = f"{mode.name} {kind}"
            with attempt(setting, name), mode.on():
                rates[name] = measure(setting, torch.bfloat16 if mode is BF16 else torch.float32)
                setting.note(name, rates[name] / TERA, "TFLOP/s")
    (setting.folder / "rates.json").write_text(json.dumps(rates), encoding="utf-8")


def matmul_rate(setting: Setting, dtype: torch.dtype) -> float:
    """Return operations a second of a large square product."""
    size = 256 if setting.quick else 8192
    one, other = (torch.randn(size, size, device=setting.device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(setting, lambda: one @ other, 0.5)


def convolution_rate(setting: Setting, dtype: torch.dtype) -> float:
    """Return operations a second of a 3 x 3 convolution with 256 channels, channels last."""
    count, width = (2, 16) if setting.quick else (64, 56)
    pixels = torch.randn(count, 256, width, width, device=setting.device, dtype=dtype)
    weight = torch.randn(256, 256, 3, 3, device=setting.device, dtype=dtype)
    pixels, weight = (x.contiguous(memory_format=torch.channels_last) for x in (pixels, weight))
    return 2 * count * width**2 * 256 * 256 * 9 / seconds_of(setting, lambda: F.conv2d(pixels, weight, padding=1), 0.5)


# --- steps ------------------------------------------------------------------------------------------------------------


def subjects(setting: Setting) -> Iterator[tuple[str, str, Any]]:
    """Yield (title, method, task) of what is measured."""
    for frames in FRAMES[:1] if setting.quick else FRAMES:
        task = cremad_task(setting, frames)
        for name in METHODS_MEASURED:
            yield f"{name}, {frames} frame" + "s" * (frames > 1), name, task


def measure_steps(setting: Setting) -> None:
    """Measure training steps: samples a second, memory, syncs, and the share of the card's own rates."""
    modes = (BF16,) if setting.quick else (BF16, TF32, FP32, BARE, FREE)
    budget = setting.seconds / 60
    for title, name, task in subjects(setting):
        for mode in modes:
            with attempt(setting, f"{title}, {mode.name}"), mode.on():
                measure_step(setting, f"{title}, {mode.name}", name, task, mode, budget)


def measure_step(setting: Setting, title: str, name: str, task: Any, mode: Mode, budget: float) -> None:
    """Note what a method's step costs in a mode."""
    if setting.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    method, batch = ready(setting, name, task, mode.precision)
    seconds = seconds_of(setting, lambda: method.step(batch), budget)
    setting.note(title, batch_size(setting) / seconds, "samples/s", remark=f"{1e3 * seconds:.1f} ms a step")
    peak = torch.cuda.max_memory_allocated() / 2**30 if setting.on_gpu else NA
    setting.note(f"{title}: memory", peak, "GiB" * setting.on_gpu)
    syncs = waits_in(lambda: method.step(batch)) if setting.on_gpu else NA
    setting.note(f"{title}: host synchronisations", syncs, ok=(syncs == 0) if setting.on_gpu else None)
    if mode in (BF16, FREE):
        rates = json.loads((setting.folder / "rates.json").read_text(encoding="utf-8"))
        done = flops_of(lambda: method.step(batch)) / seconds
        for kind in ("convolution", "matmul"):
            if f"bf16 {kind}" in rates:
                share = done / rates[f"bf16 {kind}"]
                setting.note(
                    f"{title}: share of the card's bf16 {kind} rate", share, remark=f"{done / TERA:.2f} TFLOP/s"
                )


def waits_in(call: Callable[[], object]) -> int:
    """Return how often CUDA made the host wait for the device in a call."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def count_waits(setting: Setting) -> None:
    """Count host synchronisations in the steps of every method, in its second epoch."""
    kind = DATASETS.find("dialpad3").load()
    dataset = kind(kind.Config(), None)
    recipe = Recipe(epochs=2, batch_size=64, optimizer={"kind": "sgd", "lr": 0.01})
    device = torch.device(setting.device)
    for name in METHODS_MEASURED if setting.quick else sorted(METHODS.known()):
        with attempt(setting, name):
            cls = METHODS.find(name).load()
            config = parse_settings(cls.Config, cls.expand(dataset.task)[0], name)
            if reason := cls.unsupported(config, dataset.task) or config.refuse(recipe.epochs):
                setting.note(name, "n/a", remark=reason)
                continue
            method = build_method(cls, config, dataset.task, recipe, 0, device)
            trainer = Trainer(method, load_feeds(dataset, recipe, device), recipe, 0, device)
            trainer.run_epoch()
            steps, total = watch_epoch(trainer, setting.on_gpu)
            found = total / max(steps, 1) if setting.on_gpu else NA
            known = WAITS.get(name, "")
            judged = setting.on_gpu and not known
            unit = "a step" * setting.on_gpu
            setting.note(name, found, unit, ok=(total == 0) if judged else None, remark=known)


def watch_epoch(trainer: Trainer, on_gpu: bool) -> tuple[int, int]:
    """Train an epoch; return its steps and how often the host waited in them."""
    step, counts = trainer.method.step, list[int]()

    def watched(batch: Any) -> dict[str, Any]:
        scalars: dict[str, Any] = {}
        if on_gpu:
            counts.append(waits_in(lambda: scalars.update(step(batch))))
        else:
            scalars.update(step(batch))
            counts.append(0)
        return scalars

    trainer.method.step = watched  # type: ignore[method-assign]
    trainer.run_epoch()
    return len(counts), sum(counts)


# --- other ways to run a step -----------------------------------------------------------------------------------------


def measure_graphs(setting: Setting) -> None:
    """Measure steps replayed as CUDA graphs: what is left of a step without the host."""
    for title, name, task in subjects(setting):
        for mode in (BF16, TF32):
            with attempt(setting, f"{title}, {mode.name}, graph"), mode.on():
                method, batch = ready(setting, name, task, mode.precision)
                seconds = seconds_of(setting, capture(lambda m=method, b=batch: m.step(b)), 0.5)
                setting.note(f"{title}, {mode.name}, graph", batch_size(setting) / seconds, "samples/s")


def capture(step: Callable[[], object]) -> Callable[[], None]:
    """Return a step as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def measure_compiled(setting: Setting) -> None:
    """Measure steps with compiled encoders."""
    for title, name, task in subjects(setting):
        with attempt(setting, f"{title}, bf16, compiled"), BF16.on():
            method, batch = ready(setting, name, task, "bf16")
            began = time.perf_counter()
            for encoder in method.net.encoders.values():
                encoder.compile()
            method.step(batch)
            wait(setting.device)
            first = time.perf_counter() - began
            seconds = seconds_of(setting, lambda m=method, b=batch: m.step(b), 0.5)
            remark = f"first step {first:.0f} s"
            setting.note(f"{title}, bf16, compiled", batch_size(setting) / seconds, "samples/s", remark=remark)


def measure_official(setting: Setting) -> None:
    """Measure a step of the official AUG's model, as its training loop takes it, on the same shapes."""
    if setting.official is None:
        setting.note("official AUG", "n/a", remark="no --official PATH")
        return
    with attempt(setting, "official AUG"):
        sys.path.insert(0, str(setting.official))
        made = importlib.import_module("model.AudioVideo").AVGBShareClassifier
        task = cremad_task(setting, 1)
        model = made({"fps": 1, "setting": {"num_class": task.num_classes}}).to(setting.device).train()
        _, batch = ready(setting, "concat", task)
        step = official_step(model, batch.inputs["audio"], batch.inputs["video"], batch.labels)
        with Mode("as torch has it", tf32=True, deterministic=False).on():
            seconds = seconds_of(setting, step, 2.0)
        remark = "fp32 as torch has it (TF32 convolutions), one classifier, its loop without data"
        setting.note("official AUG, 1 frame", batch_size(setting) / seconds, "samples/s", remark=remark)


def official_step(model: Any, sound: Any, image: Any, labels: Any) -> Callable[[], None]:
    """Return the body of `train_audio_video` in train_CREMAD.py @ 841d079, its scores and clearing included."""
    target = F.one_hot(labels, model.fc_out.out_features).float()
    criterion = nn.CrossEntropyLoss(reduction="none")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        features = {True: model.audio_encoder(sound), False: model.video_encoder(image)}
        for is_audio, u in features.items():
            logits, _, _ = model.classfier(u, is_a=is_audio)
            loss = criterion(logits, target).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            sum(logits.softmax(1)[row][target[row].argmax()] for row in range(len(logits)))

    return step


# --- several runs -----------------------------------------------------------------------------------------------------


def measure_packing(setting: Setting) -> None:
    """Measure 8 runs that share the card against one after the other, start of processes included."""
    seeds, epochs = ("0-1", "1") if setting.quick else ("0-7", "10")
    times = {}
    for at_a_time in (1, 2 if setting.quick else 8):
        out = setting.folder / f"packed{at_a_time}"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-P", "-m", "benchmark", "run", "--methods", "concat"]
        command += ["--datasets", str(synthetic.__file__) if setting.quick else "dialpad"]
        command += ["--seeds", seeds, "--epochs", epochs, "--device", setting.device, "--out", str(out)]
        command += ["--per-gpu" if setting.on_gpu else "--jobs", str(at_a_time)]
        began = time.perf_counter()
        done = subprocess.run(command, stdout=sys.stderr, check=False)
        times[at_a_time] = time.perf_counter() - began
        setting.note(f"{seeds}, {at_a_time} at a time", times[at_a_time], "s", ok=done.returncode == 0)
    one, packed = times.values()
    setting.note("packed, times as fast", one / packed)
