"""W&B: on a server where there is a key and the server answers, else offline in the output folder.

Where W&B silently loses data, waits or falls back, this module checks: it asks the server before it relies on it,
bounds every wait, and reads back what was written or asks the server what it has.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.track.offline import read_back
from benchmark.track.tracker import Ending, Grid, Mirror, Outcome, Page, Tracker, TrackError

if TYPE_CHECKING:
    import wandb

PROJECT = "modalbench"
"""Unless WANDB_PROJECT names another."""
LONGEST = {"name": 128, "group": 128, "tag": 64}
"""Characters that W&B takes."""
ANSWER = 5
"""Seconds that the server may take for a small request."""
INIT = 15
"""Seconds that it may take to begin a run; W&B takes up to 13 more to give up."""
UPLOAD = 20
"""Seconds that the rest of a run may take to be sent."""
SETTLE = 10.0
"""Seconds that the server may take to show what it was sent, or W&B to write what it was given."""
SILENCE = 60.0
"""Seconds for which a server that did not answer is left alone."""
FLUSH = "0.1"
"""Seconds after which what was logged is on disk; W&B's 15 would be lost when it is killed."""
CONNECTION = (
    "API_KEY", "BASE_URL", "CONFIG_DIR", "CREDENTIALS_FILE", "ENTITY", "IDENTITY_TOKEN_FILE", "INSECURE_DISABLE_SSL",
    "MODE", "PROJECT", "X_EXTRA_HTTP_HEADERS",
)  # fmt: skip
"""Variables WANDB_... of the user that W&B may see; others, such as WANDB_RUN_ID, would describe another run."""


class WandbTracker(Tracker):
    """Mirrors runs to W&B, one W&B run for each, with the run's own id."""

    title = "W&B"
    has_server = True

    def __init__(self, out: Path, must_upload: bool = False) -> None:
        super().__init__(out, must_upload)
        self._excuse, self._excused_until = "", 0.0
        self.num_open = 0
        """Runs that have begun and not been finished."""
        mode = os.environ.get("WANDB_MODE", "online")
        if mode not in ("online", "offline"):
            raise TrackError(f"WANDB_MODE={mode}, nothing is mirrored")
        try:
            import wandb
        except ImportError as error:
            raise TrackError(f"not installed ({error}); pip install wandb") from None
        self._mode, self._wandb = mode, wandb
        try:
            Path(os.environ["TMPDIR"]).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackError(f"cannot write to {out / '.wandb'} ({error.strerror})") from None

    @classmethod
    def environment(cls, out: Path) -> Mapping[str, str | None]:
        kept = {f"WANDB_{name}" for name in CONNECTION}
        dropped = dict.fromkeys(name for name in os.environ if name.startswith("WANDB_") and name not in kept)
        return {
            **dropped,
            **_own_folders(out),
            "WANDB_DIR": str(out),
            "WANDB_SILENT": "true",
            "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": FLUSH,
            "WANDB_X_DISABLE_STATS": "true",  # of the mirror's machine, which need not be the run's
            "WANDB_X_DISABLE_META": "true",
            "WANDB_X_SAVE_REQUIREMENTS": "false",
        }

    @property
    def target(self) -> str:
        """The server and project that runs go to."""
        settings = self._wandb.setup().settings
        return f"{settings.base_url} {settings.entity or ''}/{project()}"

    def open(self, page: Page) -> Mirror:
        excuse = self.unreachable()
        if not excuse:
            try:
                return OnlineMirror(self._init(page, "online"), self)
            except Exception as error:  # whatever W&B raises: a run is then written offline
                excuse = self.excuse(f"the server does not take runs ({_words(error)})")
                if self.num_open:
                    raise TrackError(excuse) from None
                self._wandb.teardown()  # else W&B takes the id for one in use
        if self.must_upload:
            raise TrackError(excuse)
        return OfflineMirror(self._init(page, "offline"), self, excuse)

    def unreachable(self) -> str:
        """Return why nothing can be sent now; empty if it can. A server that did not answer is left alone at first."""
        if self._mode == "offline":
            return "WANDB_MODE=offline"
        if self.is_excused:
            return self._excuse
        try:
            self._wandb.Api(timeout=ANSWER)
        except self._wandb.errors.AuthenticationError as error:
            refused = any(
                word in str(error).lower() for word in ("401", "403", "invalid", "unauthorized", "permission")
            )
            words = "does not take the key" if refused else f"did not answer within {ANSWER} s"
            return self.excuse(f"{self._wandb.setup().settings.base_url} {words}")
        except self._wandb.errors.UsageError:
            return self.excuse("no API key")
        return ""

    @property
    def is_excused(self) -> bool:
        return time.monotonic() < self._excused_until

    def excuse(self, reason: str) -> str:
        """Leave the server alone for a while; return the reason."""
        self._excuse, self._excused_until = reason, time.monotonic() + SILENCE
        return reason

    def look_up(self, path: str) -> Any:
        """Return a run as the server has it."""
        return self._wandb.Api(timeout=ANSWER).run(path)

    def values_of(self, ending: Ending) -> dict[str, Any]:
        """Return tables and figures as W&B's own types."""
        from PIL import Image

        def table(grid: Grid) -> Any:
            return self._wandb.Table(columns=list(grid.columns), data=[list(row) for row in grid.rows])

        images = {
            f"figures/{name}": self._wandb.Image(Image.open(io.BytesIO(png))) for name, png in ending.figures.items()
        }
        return {f"tables/{name}": table(grid) for name, grid in ending.tables.items()} | images

    def close(self) -> None:
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)

    def drop_copies(self, run: str, but: Path | None = None) -> None:
        """Remove W&B's folders of a run: of earlier sessions, or all once the server has everything."""
        for folder in (self.out / ".wandb").glob(f"*run-*-{run}"):
            if folder != but:
                shutil.rmtree(folder, ignore_errors=True)

    def _init(self, page: Page, mode: Any) -> wandb.Run:
        """Begin a W&B run.

        Raises:
            TrackError: when W&B writes elsewhere than it is told, as it does where it cannot write.
        """
        settings = self._wandb.Settings(
            console="off", silent=True, symlink=False, init_timeout=INIT, finish_timeout=UPLOAD, disable_git=True
        )
        run = self._wandb.init(
            project=project(),
            id=page.id,
            name=_cut(page.title, LONGEST["name"]),
            group=_cut(page.group, LONGEST["group"]),
            job_type="train",
            tags=[_cut(tag, LONGEST["tag"]) for tag in page.tags],
            config={**page.config, "folder": page.folder},
            dir=self.out,
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=settings,
        )
        if not Path(run.dir).is_relative_to(self.out / ".wandb"):
            elsewhere = Path(run.dir).parent
            run.finish()
            raise TrackError(f"cannot write to {self.out / '.wandb'} (W&B would have written to {elsewhere})")
        self.num_open += 1
        return run

    def end(self, run: wandb.Run, is_done: bool) -> None:
        """End a W&B run; takes as long as `UPLOAD` if the server does not answer."""
        self.num_open -= 1
        run.finish(exit_code=0 if is_done else 1)


class _WandbMirror(Mirror):
    """What runs on a server and offline have in common."""

    def __init__(self, run: wandb.Run, tracker: WandbTracker) -> None:
        self.run = run
        self.tracker = tracker
        self.folder = Path(run.dir).parent
        self._next = run.step

    @property
    def num_epochs(self) -> int:
        return self._next

    def add(self, epoch: int, scalars: Mapping[str, float]) -> None:
        self.run.log(dict(scalars), step=epoch)
        self._next = epoch + 1

    def _give(self, ending: Ending) -> None:
        """Log tables and figures in a row of their own after the last epoch, and the summary."""
        values = self.tracker.values_of(ending)
        if values:
            self.run.log(values, step=self._next)
            self._next += 1
        self.run.summary.update(dict(ending.summary))


class OfflineMirror(_WandbMirror):
    """A run in an offline folder, which holds the whole run and replaces the folders of earlier sessions."""

    def __init__(self, run: wandb.Run, tracker: WandbTracker, reason: str) -> None:
        super().__init__(run, tracker)
        self.reason = reason

    def finish(self, ending: Ending) -> Outcome:
        self._give(ending)
        self.tracker.end(self.run, ending.is_done)
        end = time.monotonic() + SETTLE  # finish() returns before everything is written
        while not (written := read_back(self.folder / f"run-{self.run.id}.wandb")).is_closed:
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        if written.num_rows < self._next or not written.is_closed:
            rows = f"only {written.num_rows} of {self._next} rows could be written"
            raise TrackError(f"{rows} to {self.folder} (is the disk full?)")
        self.tracker.drop_copies(self.run.id, but=self.folder)
        return Outcome(str(self.folder.relative_to(self.tracker.out)), is_remote=False, reason=self.reason)


class OnlineMirror(_WandbMirror):
    """A run on a server. Its folder on this disk is removed once the server shows everything."""

    def __init__(self, run: wandb.Run, tracker: WandbTracker) -> None:
        super().__init__(run, tracker)
        self.url = run.url or ""
        self.path = f"{run.entity}/{run.project}/{run.id}"

    def finish(self, ending: Ending) -> Outcome:
        if self.tracker.is_excused:  # it would have to be waited for again
            raise TrackError(self.tracker.unreachable())
        files = self._upload(ending)
        missing = self.tracker.unreachable() or self._missing(files, ending)
        if missing:
            raise TrackError(f"not everything has reached the server: {missing}")
        self.tracker.drop_copies(self.run.id)
        return Outcome(self.url, is_remote=True)

    def _upload(self, ending: Ending) -> dict[str, int]:
        """Send the rest; return the sizes of the files that belong to it."""
        try:
            self._give(ending)  # asks the server about each table, and raises what it answers
        finally:
            self.tracker.end(self.run, ending.is_done)
        media = Path(self.run.dir) / "media"
        return {str(path.relative_to(self.run.dir)): path.stat().st_size for path in media.rglob("*") if path.is_file()}

    def _missing(self, files: Mapping[str, int], ending: Ending) -> str:
        """Return what is missing on the server; empty if nothing is. It may take a while to show what it has."""
        end = time.monotonic() + SETTLE
        while True:
            missing = self._compare(files, ending)
            if not missing or time.monotonic() > end:
                return missing
            time.sleep(0.5)

    def _compare(self, files: Mapping[str, int], ending: Ending) -> str:
        try:
            found = self.tracker.look_up(self.path)
            if found.historyLineCount < self._next:
                return f"it shows {found.historyLineCount} of {self._next} rows"
            differing = [key for key, value in ending.summary.items() if found.summary_metrics.get(key) != value]
            if differing:
                return f"it lacks {', '.join(differing[:3])} of the summary"
            sizes = {file.name: file.size for file in found.files()}
        except Exception as error:  # whatever W&B raises: not known is not there
            return _words(error)
        lacking = [name for name, size in files.items() if sizes.get(name) != size]
        return f"it lacks {len(lacking)} of {len(files)} files, such as {lacking[0]}" if lacking else ""


def project() -> str:
    return os.environ.get("WANDB_PROJECT") or PROJECT


def _own_folders(out: Path) -> dict[str, str]:
    """Return where W&B puts what it would else leave in the home and the system's temporary folder."""
    scratch = str(out / ".wandb" / "tmp" / secrets.token_hex(4))
    return dict.fromkeys(("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR", "TMPDIR"), scratch)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _words(error: Exception) -> str:
    """Return an error in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
