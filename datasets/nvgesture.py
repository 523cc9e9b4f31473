"""NVGesture: 25 hand gestures towards a car's display, in colour, optical flow and depth (Molchanov et al., CVPR 2016).

The official clips, windows and split, found under the data root:

    nvgesture/nvgesture_train_correct_cvpr2016_v2.lst   or nvgesture_train_correct_v2.lst; also _test_
    nvgesture/Video_data/class_01/subject3_r0/          sk_color.avi and sk_depth.avi of each clip
    nvgesture/Video_data/flow_data/train/0.npy          flow (256, 256, 2, T) of the first clip in the list; also test

Without the .lst files, annotations/{trainlistall,vallistall}_but_None.txt of Real-time-GesRec are read, which name the
same clips and windows. A clip's class is its label in the list, which for 23 clips is not that of its folder. Without
flow_data/, RAFT computes the flow of the colour frames, once these are 256 x 256, in pixels of that size. A prepared
store takes 42 MB a clip, 64 GB in all.

Shapes: T frames, H height, W width, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from benchmark.data import Rows, Samples, TaskSpec
from benchmark.encoders.i3d import I3d
from benchmark.encoders.weights import digest_weights
from benchmark.errors import Problem, UserError
from benchmark.inputs.clips import Clip, ClipDataset, Part
from benchmark.inputs.flow import FlowConfig
from benchmark.inputs.lists import (
    Row,
    check_counts,
    check_unique,
    find_files,
    label_indices,
    raise_some,
    read_lines,
)
from benchmark.inputs.media import Frames, MediaError, read_frames
from benchmark.inputs.store import Arrays, Packed, Spread
from benchmark.inputs.transforms import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from torchvision.models.optical_flow import RAFT

CLASSES = (
    "five fingers right", "five fingers left", "five fingers up", "five fingers down", "two fingers right",
    "two fingers left", "two fingers up", "two fingers down", "click", "beckon", "stretch hand", "shake hand", "one",
    "two", "three", "lift up", "press down", "push", "shrink", "rotate counterclockwise", "rotate clockwise",
    "two fingers prod", "grab", "thumbs up", "OK",
)  # fmt: skip
"""In the order of the official labels 1 to 25, which the lists give as numbers and papers refer to; the names are not
official, so sorting by them would define no order."""
COUNTS = {"train": 1050, "test": 482}
STORED, SIZE = 256, 224
"""Height and width of a frame in the store, and of what the encoders read, in pixels."""
NUM_FRAMES = 80
"""Length of every official window, at 30 frames a second."""
MAX_FLOW = 20.0
"""Pixels a frame that Kinetics I3D's flow is cut at (Carreira and Zisserman, CVPR 2017)."""
FLOW_FILES = "Video_data/flow_data"
WHERE = "data set nvgesture"
ADVICE = (
    "Get NVGesture from NVIDIA Research (Online Detection and Classification of Dynamic Hand Gestures, 2016) and put "
    "Video_data/ and its lists nvgesture_{train,test}_correct_cvpr2016_v2.lst, or annotation_nvGesture/ of "
    "Real-time-GesRec under the name annotations/, into a folder nvgesture/ under --data-root or $BENCH_DATA."
)


@dataclass(frozen=True)
class Source:
    """One form in which the official lists are found."""

    lists: Mapping[Part, str]
    line: re.Pattern[str]
    example: str


CLIP = r"(?:\./)?Video_data/(?P<id>class_\d+/(?P<subject>subject\d+)_r\d+)"
OFFICIAL_LINE = re.compile(
    rf"path:{CLIP}\s+depth:(?P<depth>\w+):(?P<depth_start>\d+):(?P<depth_end>\d+)\s+"
    r"color:(?P<color>\w+):(?P<color_start>\d+):(?P<color_end>\d+)\s+(?:\S+\s+)*label:(?P<label>\d+)"
)
OFFICIAL_EXAMPLE = "path:./Video_data/class_01/subject3_r0 depth:sk_depth:146:226 color:sk_color:146:226 label:1"
SOURCES = (
    *(
        Source(
            {"train": f"nvgesture_train_correct_{version}.lst", "test": f"nvgesture_test_correct_{version}.lst"},
            OFFICIAL_LINE,
            OFFICIAL_EXAMPLE,
        )
        for version in ("cvpr2016_v2", "v2")
    ),
    Source(
        {"train": "annotations/trainlistall_but_None.txt", "test": "annotations/vallistall_but_None.txt"},
        re.compile(rf"{CLIP}/(?P<color>\w+)_all (?P<label>\d+) (?P<color_start>\d+) (?P<color_end>\d+)"),
        "./Video_data/class_01/subject3_r0/sk_color_all 1 146 226",
    ),
)
"""The first whose lists are there is read: the official ones, under their own name or AMSS's and IGM's, then those of
Real-time-GesRec, which give the windows of the colour video alone."""


@dataclass(frozen=True)
class Scale:
    """How a modality's values become what its encoder reads: (x - mean) / std, for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    limit: float | None = None
    """Largest size of a value; larger ones are cut."""
    reverse: bool = False
    """Channels in reverse order: blue, green, red."""

    def apply(self, clip: Tensor) -> Tensor:
        """Return float values (C, T, H, W) of a clip (T, H, W, C)."""
        x = clip.permute(3, 0, 1, 2).float()
        if self.limit is not None:
            x = x.clamp(-self.limit, self.limit)
        if self.reverse:
            x = x.flip(0)
        mean, std = (torch.tensor(values, device=x.device)[:, None, None, None] for values in (self.mean, self.std))
        return (x - mean) / std


def in_bytes(values: Sequence[float]) -> tuple[float, ...]:
    """Return values of [0, 1] as of [0, 255]."""
    return tuple(255 * value for value in values)


SCALES = {
    "kinetics": {
        "rgb": Scale((127.5,) * 3, (127.5,) * 3),
        "flow": Scale((0.0,) * 2, (MAX_FLOW,) * 2, limit=MAX_FLOW),
        "depth": Scale((127.5,), (127.5,)),
    },
    "published": {
        "rgb": Scale(in_bytes(IMAGENET_MEAN), in_bytes(IMAGENET_STD), reverse=True),
        "flow": Scale((0.0,) * 2, (1.0,) * 2),
        "depth": Scale((0.0,), (255.0,)),
    },
}
CHANNELS = {modality: len(scale.mean) for modality, scale in SCALES["kinetics"].items()}


class NvGesture(ClipDataset):
    about = (
        "NVGesture (Molchanov et al. 2016), 1,532 clips of 25 gestures by 18 subjects; NVIDIA, non-commercial research"
    )
    published = COUNTS
    recipe = {"epochs": 100, "batch_size": 6, "eval_batch_size": 6, "optimizer": {"lr": 0.01}}
    num_draws = 3
    default_encoders = {"rgb": I3d(), "flow": I3d(), "depth": I3d()}

    class Config(ClipDataset.Config):
        counts: Literal["published", "any"] = "published"
        """`any`: let lists pass that hold other numbers of clips than the published ones."""
        train_frames: int = Field(default=64, ge=1, le=NUM_FRAMES)
        """Frames of a training clip, a random window of the 80; evaluation reads all 80. AMSS's and IGM's."""
        flow_window: Literal["same", "whole"] = "same"
        """Which frames of the flow train: those of the window, or all 80 as in the released code of AMSS and IGM, where
        colour and depth are cut and the flow is not."""
        scaling: Literal["kinetics", "published"] = "kinetics"
        """`kinetics`: what Kinetics I3D was trained on: RGB (and here depth) in [-1, 1], flow cut at 20 pixels and
        divided by 20. `published`: AMSS's and IGM's: ImageNet's constants of red, green, blue on blue, green, red;
        depth in [0, 1]; flow in pixels."""
        raft: FlowConfig = FlowConfig()
        """What computes the flow where there are no files of it."""
        raft_device: Literal["cpu", "cuda"] = "cpu"
        """Where it does, in each process of `bench data prepare`. On a CPU core, the large RAFT takes about 3 minutes
        for a clip. The last bits of the flow depend on it."""

    config: Config

    @property
    def task(self) -> TaskSpec:
        shapes = {m: (channels, NUM_FRAMES, SIZE, SIZE) for m, channels in CHANNELS.items()}
        return TaskSpec({m: self.modality(m, shape) for m, shape in shapes.items()}, CLASSES)

    @cached_property
    def clips(self) -> Sequence[Clip]:
        source = self._source()
        paths = find_files(self.root, source.lists.values(), WHERE, ADVICE)
        parts = {part: read_windows(path, source) for part, path in zip(source.lists, paths, strict=True)}
        if self.config.counts == "published":
            published = {f"{part} clips": COUNTS[part] for part in parts}
            check_counts(WHERE, published, {f"{part} clips": len(rows) for part, rows in parts.items()}, ADVICE)
        check_unique([row for rows in parts.values() for row in rows], "id")
        return [self._clip(part, i, row) for part, rows in parts.items() for i, row in enumerate(rows)]

    def decoding(self) -> Mapping[str, Any]:
        return {} if self._has_flow_files else {**self._flow_settings, "device": self.config.raft_device}

    def decode(self, clip: Clip) -> Arrays:
        size = (STORED, STORED)
        rgb = read_frames(clip.files["color"], Frames(*clip.facts["color"]), size)
        depth = read_frames(clip.files["depth"], Frames(*clip.facts["depth"]), size)[..., :1]  # grey as it is
        flow = read_flow(clip.files["flow"]) if "flow" in clip.files else self.config.raft.flow(self._raft, rgb)
        return {"rgb": rgb, "flow": pack_flow(flow), "depth": depth}

    def inputs(self, packed: Mapping[str, Packed], clips: Sequence[Clip]) -> Mapping[str, Tensor | Rows]:
        return {modality: Spread(packed[modality], NUM_FRAMES) for modality in CHANNELS}

    def keys(self) -> Mapping[str, Sequence[str]]:
        return {"subject": [clip.group for clip in self.clips]}

    def groups(self, samples: Samples) -> Sequence[str]:
        subject_of = {clip.id: clip.group for clip in self.clips}
        return [subject_of[name] for name in samples.ids]

    def transform(self, inputs: Mapping[str, Tensor], draws: Tensor | None) -> dict[str, Tensor]:
        return {modality: self._cut(modality, clips, draws) for modality, clips in inputs.items()}

    def _cut(self, modality: str, clips: Tensor, draws: Tensor | None) -> Tensor:
        """Cut all of a modality's clips (B, T, H, W, C) in time and space and scale them."""
        uncut = draws is None or (modality == "flow" and self.config.flow_window == "whole")
        frames = NUM_FRAMES if uncut else self.config.train_frames
        margin = clips.shape[2] - SIZE
        if draws is None:
            starts = torch.tensor([[0, margin // 2, margin // 2]]).expand(len(clips), 3)
        else:
            starts = (draws * torch.tensor([NUM_FRAMES - frames + 1, margin + 1, margin + 1]).to(draws)).long()
        scale = SCALES[self.config.scaling][modality]
        out = torch.empty(len(clips), clips.shape[4], frames, SIZE, SIZE, device=clips.device)
        for clip, (start, top, left), into in zip(clips, starts.tolist(), out, strict=True):
            into.copy_(scale.apply(clip[start : start + frames, top : top + SIZE, left : left + SIZE]))
        return out

    def _source(self) -> Source:
        """Return the form of the lists that are there; the first one where there are none."""
        root = self.root or Path()
        return next((s for s in SOURCES if any((root / name).is_file() for name in s.lists.values())), SOURCES[0])

    @cached_property
    def _has_flow_files(self) -> bool:
        """Return whether there are files of flow.

        Raises:
            UserError: when there are, but not the lists whose lines they are numbered by.
        """
        if self.root is None or not (self.root / FLOW_FILES).is_dir():
            return False
        if self._source() is SOURCES[-1]:
            got, advice = f"those of {', '.join(SOURCES[-1].lists.values())}", f"Get them, or move {FLOW_FILES} away."
            raise UserError(
                Problem(WHERE, f"the .lst lists, whose lines number the files of {FLOW_FILES}", got, advice)
            )
        return True

    def _clip(self, part: Part, number: int, row: Row) -> Clip:
        """Return the clip of a list's line, counted from 0."""
        assert self.root is not None
        folder = self.root / "Video_data" / row["id"]
        files = {stream: folder / f"{row[stream]}.avi" for stream in ("color", "depth")}
        if self._has_flow_files:
            files["flow"] = self.root / FLOW_FILES / part / f"{number}.npy"
        windows = {stream: [int(row[f"{stream}_start"]), int(row[f"{stream}_end"])] for stream in ("color", "depth")}
        return Clip(row["id"], int(row["label"]) - 1, part, files, row["subject"], windows)

    @cached_property
    def _flow_settings(self) -> Mapping[str, Any]:
        """What decides the flow that RAFT computes. Raises `UserError` when its weights are missing."""
        raft = self.config.raft
        settings = {"size": raft.size, "num_updates": raft.num_updates}
        return {**settings, "weights": digest_weights(raft.weight_files())}

    @cached_property
    def _raft(self) -> RAFT:
        return self.config.raft.build(torch.device(self.config.raft_device))


def read_windows(path: Path, source: Source) -> list[Row]:
    """Return the clips of one list: id, subject, label, and for colour and depth the file, first frame and end.

    Raises:
        UserError: with each malformed line, unknown label or window of another length.
    """
    rows, problems = [], []
    for where, line in read_lines(path):
        match = source.line.fullmatch(line.strip())
        if match is None:
            problems.append(Problem(where, f"a line such as {source.example!r}", repr(line[:120])))
            continue
        found = match.groupdict()
        as_color = {"depth": "sk_depth", "depth_start": found["color_start"], "depth_end": found["color_end"]}
        rows.append(Row(where, {**as_color, **found, "label": str(int(found["label"]))}))
    for row in rows:
        for stream in ("color", "depth"):
            length = int(row[f"{stream}_end"]) - int(row[f"{stream}_start"])
            if length != NUM_FRAMES:
                problems.append(Problem(row.where, f"{NUM_FRAMES} frames of {stream}", f"{length}"))
    raise_some(problems)
    label_indices(rows, "label", [str(number) for number in range(1, len(CLASSES) + 1)])
    return rows


def read_flow(path: Path) -> NDArray[np.float32]:
    """Read a file of flow, (H, W, 2, T) -> (T, 2, H, W). Raises `MediaError` when it is damaged or something else."""
    try:
        flow = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason, _, _ = str(error).partition("\n")
        raise MediaError(f"no array of numpy: {reason}") from error
    lengths = (NUM_FRAMES - 1, NUM_FRAMES)  # from each frame to the next, or one more
    if flow.dtype.kind not in "fiu" or flow.shape[:-1] != (STORED, STORED, 2) or flow.shape[-1] not in lengths:
        raise MediaError(f"expected numbers ({STORED}, {STORED}, 2, {NUM_FRAMES}), got {flow.dtype} {flow.shape}")
    return np.asarray(flow.transpose(3, 2, 0, 1), np.float32)


def pack_flow(flow: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return flow (T, 2, H, W) as it is stored, (80, H, W, 2). Of the last frame, which has no next, the one before.

    Raises:
        MediaError: when a value is not finite, or too large for half precision.
    """
    missing = NUM_FRAMES - len(flow)
    packed = np.concatenate([flow, flow[len(flow) - missing :]]).transpose(0, 2, 3, 1)
    if not np.all(np.abs(packed) < np.finfo(np.float16).max):
        raise MediaError("flow that is not finite")
    return np.ascontiguousarray(packed, np.float16)
