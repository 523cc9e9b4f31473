"""TensorBoard: event files in the output folder, `tensorboard --logdir runs/.tensorboard`."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.track.tracker import Ending, Grid, Mirror, Outcome, Page, Tracker, TrackError


class TensorBoardTracker(Tracker):
    """Mirrors runs to event files, one folder for each run, created again by each session."""

    title = "TensorBoard"

    def __init__(self, out: Path, must_upload: bool = False) -> None:
        super().__init__(out, must_upload)
        try:
            import tensorboard.summary.writer.event_file_writer  # noqa: F401
        except ImportError as error:
            raise TrackError(f"not installed ({error}); pip install tensorboard") from None

    def open(self, page: Page) -> Mirror:
        try:
            return TensorBoardMirror(self.out, page)
        except OSError as error:
            raise TrackError(f"cannot write to {self.out / '.tensorboard'} ({error.strerror})") from None


class TensorBoardMirror(Mirror):
    """A run as event files. TensorBoard's own writer is used, which needs no TensorFlow."""

    def __init__(self, out: Path, page: Page) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._path = Path(".tensorboard") / page.folder
        self._folder = out / self._path
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writer = EventFileWriter(str(self._folder), flush_secs=1)
        self._next = 0
        config = json.dumps({"group": page.group, **page.config}, indent=2, default=str)
        self._write(0, _text("config", f"```\n{config}\n```"))

    @property
    def num_epochs(self) -> int:
        return self._next

    def add(self, epoch: int, scalars: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(epoch, *(Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()))
        self._next = epoch + 1

    def finish(self, ending: Ending) -> Outcome:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [_text("summary", _markdown(Grid(["name", "value"], list(ending.summary.items()))))]
        values += [_text(f"tables/{name}", _markdown(grid)) for name, grid in ending.tables.items()]
        values += [
            Summary.Value(tag=f"figures/{name}", image=Summary.Image(encoded_image_string=png))
            for name, png in ending.figures.items()
        ]
        self._write(self._next, *values)
        try:
            self._writer.close()
        except OSError as error:
            raise TrackError(f"cannot write to {self._folder} ({error.strerror})") from None
        return Outcome(str(self._path), is_remote=True)

    def _write(self, step: int, *values: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        try:
            self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
            self._writer.flush()
        except OSError as error:
            raise TrackError(f"cannot write to {self._folder} ({error.strerror})") from None


def _text(name: str, content: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[content.encode()], tensor_shape=shape)
    return Summary.Value(tag=name, metadata=create_summary_metadata(name, ""), tensor=tensor)


def _markdown(grid: Grid) -> str:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join("" if cell is None else str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(grid.columns), line(["---"] * len(grid.columns)), *map(line, grid.rows)])
