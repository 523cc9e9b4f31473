"""Decoders: sound, images, frames of a video as arrays. What cannot be read whole is a `MediaError`, never a guess.

PyAV reads containers: its wheel brings FFmpeg along, so a result does not depend on what the machine has installed
(torchcodec needs FFmpeg's shared libraries of a fitting version, found at run time). Each call decodes on one thread,
so processes share the cores, and a file's bytes, not its name, tell its format.

Shapes: T frames, H height, W width.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmark.inputs.impostors import find_impostor

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from PIL.Image import Image

# Formats are listed because others name files or programs to open: playlists (FFmpeg), PostScript (Pillow).
CONTAINERS = "aac,aiff,asf,avi,flac,flv,matroska,mov,mp3,mpeg,mpegts,mpegvideo,ogg,wav"
IMAGES = ("AVIF", "BMP", "DDS", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "SGI", "TIFF", "WEBP")
"""Those whose first bytes tell them. Others may be taken for pictures of noise (TGA has no mark)."""
MAX_PIXELS = 2**26
"""Of a picture or a frame, told by its header before it is decoded: 67 million, 200 MB as RGB."""
MAX_BYTES = 2**31
"""Of the frames kept of a video or of a sound, in memory: 2 hours of frames of 340 x 256, 9 of sound at 16 kHz."""
DEEP = 2**16 - 1
"""White in grey of 16 bits."""
UNKNOWN_LENGTH = 0x7FFF_0000
"""Writers to a pipe do not know the length in advance and put this many bytes, or more, in the header."""
TIMED = frozenset({"flv", "matroska", "mov"})
"""Containers whose header says how long they are; of others FFmpeg estimates it from what it finds."""
LATE = 0.5
"""Seconds that a container may stop before its header says, which is rounded or of streams not read."""
UNEVEN = 0.02
"""How much a video's rate by its time stamps may differ from the one its header gives, as a share."""
FLOAT = 4
"""Bytes of a sample."""
SHORT = 0.01
"""Share of its bytes that an avi may lack: less is of the index at its end, or a careless header."""


class MediaError(Exception):
    """A file cannot be read. Its text is the reason in a line, without the path."""


@dataclass(frozen=True)
class Frames:
    """Which frames of a video to keep, counted from 0 in display order."""

    start: int = 0
    end: int | None = None
    """The first frame no longer wanted. The video must reach it. None: to the last frame, wherever that is."""
    step: int | None = 1
    """Every how many frames. None: one a second, the literature's way: every `int(fps)`-th."""


@dataclass(frozen=True)
class Facts:
    """What a file says of itself. None for what it has not."""

    num_frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    seconds: float | None = None
    sample_rate: int | None = None
    """Of the sound, in Hz."""
    channels: int | None = None
    varies: bool = False
    """Whether the header says that frames do not come at one rate, so that frames counted are no seconds."""


def read_audio(path: Path, rate: int) -> NDArray[np.float32]:
    """Return the sound of a file, the mean of its channels, as `librosa.load(path, sr=rate)` does.

    Args:
        path: wav, flac, or any container with a sound stream.
        rate: samples per second of the result; resampled by `soxr_hq` where the file has another.

    Returns:
        (samples,), integers scaled to [-1, 1).

    Raises:
        MediaError: when the file is missing, has no sound, is cut short or damaged. Not seen: a cut of under half a
            second between two packets, and where the sound of an mpg is cut, which its frames show (`read_frames`).
    """
    with _open(path) as file, _decoding():
        waveform, source_rate = _read_wave(file) if _is_wave(file) else _read_sound(file)
        if not len(waveform):
            raise MediaError("no samples")
        if not np.isfinite(waveform).all():
            raise MediaError("samples that are not finite")
        return _resample(waveform, source_rate, rate)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return an image as Pillow's `convert("RGB")` gives it, and grey of 16 bits scaled to 8, which that does not.

    So grey is repeated, a palette looked up, CMYK converted, transparency dropped without blending, the first frame
    of an animation taken, and the EXIF orientation ignored, as the literature's loaders do.

    Returns:
        (H, W, 3).

    Raises:
        MediaError: when the file is missing, no image, cut short or damaged, larger than `MAX_PIXELS`, or has values
            whose range is unknown (floats, integers beyond 16 bits).
    """
    from PIL import Image, UnidentifiedImageError

    with _open(path) as file, _decoding():
        try:
            with Image.open(file, formats=_image_formats()) as image:
                _check_size(*image.size)
                return _rgb(image)
        except UnidentifiedImageError:
            raise MediaError(f"no image of a known format ({', '.join(_image_formats())})") from None


def picture_suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case and with their dot, of pictures that `read_image` reads."""
    from PIL import Image

    formats = set(_image_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def _image_formats() -> list[str]:
    """Return those formats of `IMAGES` that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return [name for name in IMAGES if name in Image.OPEN]


def _rgb(image: Image) -> NDArray[np.uint8]:
    """Return a picture as bytes (H, W, 3), whatever its depth; Pillow cuts what is above 255 in grey of 16 bits."""
    if not image.mode.startswith(("I", "F")):
        return np.array(image.convert("RGB"))
    values = np.array(image)  # (H, W)
    if image.mode == "F" or values.min() < 0 or values.max() > DEEP:
        raise MediaError(f"grey of mode {image.mode}, {values.min():g} to {values.max():g}, whose range is not known")
    grey = ((values.astype(np.int32) * 255 + DEEP // 2) // DEEP).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MediaError(f"{width:,} x {height:,} pixels, more than {MAX_PIXELS:,}")


def _check_bytes(num_bytes: float, what: str) -> None:
    if num_bytes > MAX_BYTES:
        raise MediaError(f"{what} of {num_bytes:,.0f} bytes in memory, more than {MAX_BYTES:,}")


def read_frames(path: Path, wanted: Frames, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return frames of a video, in the order in which they are shown. Holds no others in memory.

    Frames come in the decoder's order, not by time stamp: an avi file has none, and those FFmpeg makes up for it
    shuffle frames that were coded out of order. A tag that asks the player to rotate is ignored.

    Args:
        path: any container with a video stream.
        wanted: which frames.
        size: (height, width) to resize to, by Pillow's bilinear filter with antialiasing.

    Returns:
        RGB, (T, H, W, 3).

    Raises:
        MediaError: when the file is missing, has no video, ends before the frames wanted, is cut short or damaged.
    """
    kept, count = [], 0
    with _open(path) as file, _decoding(), _container(file) as container:
        stream = _moving(container)
        if stream is None:
            raise MediaError("no video stream")
        _check_size(stream.width, stream.height)
        step = wanted.step or max(1, int(_fps(stream)))
        for frame in _decode(file, container, stream):
            if count >= wanted.start and (count - wanted.start) % step == 0:
                _check_size(frame.width, frame.height)
                kept.append(_pixels(frame, size))
                _check_bytes(len(kept) * kept[0].nbytes, "frames")
            count += 1
            if count == wanted.end:
                break
        if count < (wanted.end or 0):
            raise MediaError(f"ends early: {count:,} frames, {wanted.end:,} wanted")
        if not kept:
            raise MediaError(f"ends early: {count:,} frames, wanted from frame {wanted.start:,} on")
        if len(shapes := {frame.shape[:2] for frame in kept}) > 1:
            raise MediaError(f"frames of different sizes (height, width): {sorted(shapes)}")
        return np.stack(kept)


def probe(path: Path) -> Facts:
    """Return what a file says of itself, decoding nothing.

    Frames are counted where the header does not give their number (mpg, flv). An avi may give one too many.

    Raises:
        MediaError: when the file is missing or no sound or video of a known format.
    """
    with _open(path) as file, _decoding(), _container(file) as container:
        facts = Facts(seconds=_seconds(container))
        for audio in container.streams.audio[:1]:
            facts = replace(facts, sample_rate=audio.rate, channels=audio.channels)
        if (video := _moving(container)) is not None:
            fps, (count, rate) = _fps(video), _count(container, video)
            varies = bool(fps and rate) and abs(rate / fps - 1) > UNEVEN
            facts = replace(facts, num_frames=count, fps=fps or None, height=video.height, width=video.width,
                            varies=varies)  # fmt: skip
        return facts


def _open(path: Path) -> IO[bytes]:
    """Open a file that has bytes. Anything else could block for ever, as a pipe does."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise MediaError("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("not a regular file")
        if not status.st_size:
            raise MediaError("empty file")
        if impostor := find_impostor(path):
            raise MediaError(str(impostor))
        return path.open("rb")
    except OSError as error:
        raise MediaError(f"cannot be opened: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # a name that no file can have
        raise MediaError(f"cannot be opened: {error}") from error


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn whatever a library raises on a damaged file, and they raise everything, into a `MediaError`."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
        line = (str(reason).splitlines() or [""])[0]
        raise MediaError(f"cannot be decoded: {line or type(error).__name__}") from error


def _is_wave(file: IO[bytes]) -> bool:
    head = file.read(12)
    file.seek(0)
    return head[:4] == b"fLaC" or (head[:4] == b"RIFF" and head[8:] == b"WAVE")


def _read_wave(file: IO[bytes]) -> tuple[NDArray[np.float32], int]:
    """Return the waveform (samples,) of a wav or flac file, and its rate."""
    import soundfile

    _check_wav(file)
    with soundfile.SoundFile(file) as sound:
        _check_bytes(FLOAT * sound.frames * sound.channels, "sound")
        samples = sound.read(dtype="float32", always_2d=True)  # (samples, channels)
        return samples.T.mean(axis=0), sound.samplerate


def _check_wav(file: IO[bytes]) -> None:
    """Raise `MediaError` for a wav whose samples stop before its header says: libsndfile reads what is left."""
    size = os.fstat(file.fileno()).st_size
    if file.read(4) == b"RIFF":
        start, name, length = 12, b"", 0
        while name != b"data":
            start += length + length % 2  # chunks begin at even places
            file.seek(start)
            header = file.read(8)
            if len(header) < 8:
                raise MediaError("truncated: no samples chunk")
            name, length = struct.unpack("<4sI", header)
            start += len(header)
        if size - start < length < UNKNOWN_LENGTH:
            raise MediaError(f"truncated: header says {length:,} bytes of samples, file holds {size - start:,}")
    file.seek(0)


def _read_sound(file: IO[bytes]) -> tuple[NDArray[np.float32], int]:
    """Return the waveform (samples,) of a container's sound stream, and its rate."""
    import av

    with _container(file) as container:
        if not container.streams.audio:
            raise MediaError("no audio stream")
        stream = container.streams.audio[0]
        to_float = av.AudioResampler(format="fltp")
        pieces, rate, length = [], 0, 0
        for frame in chain(_decode(file, container, stream), (None,)):
            for part in to_float.resample(frame):
                pieces.append(part.to_ndarray().mean(axis=0))  # from (channels, samples)
                rate, length = rate or part.sample_rate, length + part.samples
                _check_bytes(FLOAT * length, "sound")
        if not pieces:
            raise MediaError("no samples")
        return np.concatenate(pieces), rate


def _resample(waveform: NDArray[np.float32], source_rate: int, rate: int) -> NDArray[np.float32]:
    import soxr

    if source_rate == rate:
        return waveform
    _check_bytes(FLOAT * len(waveform) * rate / source_rate, f"sound of {source_rate:,} Hz at {rate:,} Hz")
    length = int(np.ceil(len(waveform) * (rate / source_rate)))  # librosa's; soxr rounds
    resampled = soxr.resample(waveform, source_rate, rate, quality="soxr_hq")
    return np.pad(resampled, (0, length - len(resampled))).astype(np.float32, copy=False)


def _container(file: IO[bytes]) -> InputContainer:
    import av

    # As a file object: of a name, FFmpeg would make an address ("http:...").
    return av.open(file, "r", options={"format_whitelist": CONTAINERS}, metadata_errors="replace")


def _moving(container: InputContainer) -> VideoStream | None:
    """Return the first stream of moving pictures: the picture on the cover of a song is a video stream too."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    return next((stream for stream in container.streams.video if not stream.disposition & still), None)


def _count(container: InputContainer, stream: VideoStream) -> tuple[int, float]:
    """Return how many frames a video has, and how many a second by their time stamps, 0 where it has none."""
    if stream.frames:
        return stream.frames, float(stream.average_rate or 0)
    times = [packet.pts for packet in container.demux(stream) if packet.size]
    known = [time for time in times if time is not None]
    seconds = float((max(known) - min(known)) * stream.time_base) if known and stream.time_base else 0
    return len(times), (len(known) - 1) / seconds if seconds else 0.0


def _fps(stream: VideoStream) -> float:
    return float(stream.guessed_rate or stream.average_rate or 0)


def _decode(file: IO[bytes], container: InputContainer, stream: AudioStream | VideoStream) -> Iterator[Any]:
    """Yield the frames of a stream. Raises `MediaError` where any of its container is damaged or missing."""
    stream.codec_context.thread_count = 1
    count, end = 0, 0.0
    for packet in container.demux():
        if packet.is_corrupt:
            raise MediaError(f"truncated or damaged: packet {count:,} is incomplete")
        if packet.size:  # a stream ends with an empty one, which asks the decoder for what it still holds
            count += 1
            end = max(end, _end(packet))
        if packet.stream_index == stream.index:
            frame: Any
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise MediaError(f"damaged: a frame of packet {count:,} is incomplete")
                yield frame
    told = _seconds(container) if TIMED.intersection(container.format.name.split(",")) else None
    if told and end < told - LATE:
        raise MediaError(f"truncated: header says {told:.2f} s, file holds {end:.2f} s")
    if container.format.name == "avi":
        _check_avi(file)


def _check_avi(file: IO[bytes]) -> None:
    """Raise `MediaError` for an avi shorter than its header says: FFmpeg reads what is left."""
    held = os.fstat(file.fileno()).st_size - 8
    file.seek(0)
    _, length = struct.unpack("<4sI", file.read(8))
    if held < length * (1 - SHORT) and length < UNKNOWN_LENGTH:
        raise MediaError(f"truncated: header says {length:,} bytes, file holds {held:,}")


def _end(packet: Packet[Any]) -> float:
    """Return when a packet is over, in seconds of the container's clock."""
    time = packet.dts if packet.pts is None else packet.pts
    return 0.0 if time is None else float((time + (packet.duration or 0)) * packet.time_base)


def _seconds(container: InputContainer) -> float | None:
    import av

    return container.duration / av.time_base if container.duration else None


def _pixels(frame: VideoFrame, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    from PIL import Image

    pixels = np.asarray(frame.to_ndarray(format="rgb24", threads=1), dtype=np.uint8)
    if size is None:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
