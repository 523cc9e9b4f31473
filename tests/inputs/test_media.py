"""Decoders: sound as librosa has it, frames whose content is known, and a reason for each file that cannot be read."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zlib
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np
import pytest
import soundfile
import torchvision
from av.video.frame import PictureType
from PIL import Image

from benchmark.inputs import media
from benchmark.inputs.media import (
    Facts,
    Frames,
    MediaError,
    picture_suffixes,
    probe,
    read_audio,
    read_frames,
    read_image,
)

DATA = Path(os.environ.get("BENCH_DATA", "nowhere"))


needs = pytest.mark.data


def write_video(path, frames, codec="ffv1", pix_fmt="bgr0", fps=30, sound=None, options=None, muxer=None):
    """Write frames (T, H, W, 3); `sound` is (codec, waveform (channels, samples), sample format)."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        streams = [(stream, (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames))]
        if sound:
            audio_codec, waveform, sample_format = sound
            audio = container.add_stream(audio_codec, rate=44_100)
            audio.layout = layout = "mono" if len(waveform) == 1 else "stereo"
            streams.append((audio, sound_frames(waveform, sample_format, layout)))
        for stream, parts in streams:
            for part in (*parts, None):
                container.mux(stream.encode(part))
    return path


def sound_frames(waveform, sample_format, layout):
    for start in range(0, waveform.shape[1], 1024):
        part = np.ascontiguousarray(waveform[:, start : start + 1024])
        if not sample_format.endswith("p"):
            part = np.ascontiguousarray(part.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(part, format=sample_format, layout=layout)
        frame.sample_rate, frame.pts = 44_100, start
        yield frame


def noise(num_frames, height=48, width=64):
    return np.random.default_rng(num_frames).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def greys(num_frames, height=48, width=64):
    """Frames that say their number: all grey, one level brighter each."""
    return np.broadcast_to(np.arange(num_frames, dtype=np.uint8)[:, None, None, None], (num_frames, height, width, 3))


def scene(num_frames):
    """A gradient that moves, with noise, so that a frame takes some bytes."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 4 * np.pi, 160) + np.arange(num_frames)[:, None] / 5
    frames = 120 + 80 * np.sin(x)[:, None, :, None] + rng.normal(0, 12, (num_frames, 120, 160, 3))
    return frames.clip(0, 255).astype(np.uint8)


def tone(seconds, hertz=440.0, channels=2):
    return np.tile(0.5 * np.sin(2 * np.pi * hertz * np.arange(int(44_100 * seconds)) / 44_100), (channels, 1)).astype(
        "f4"
    )


def reason(read, *arguments):
    with pytest.raises(MediaError) as raised:
        read(*arguments)
    text = str(raised.value)
    assert text
    assert "\n" not in text
    return text


READERS = {
    "audio": lambda path: read_audio(path, 16_000),
    "image": read_image,
    "frames": lambda path: read_frames(path, Frames()),
    "probe": probe,
}


@pytest.fixture(params=READERS)
def read(request):
    return READERS[request.param]


# Sound files


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_U8"), ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "ULAW"), ("flac", "PCM_24")],
)
def test_sound_is_librosas_bit_for_bit(tmp_path, suffix, subtype, channels, rate):
    path = tmp_path / f"sound.{suffix}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.2, (44_107, channels)), 44_100, subtype)
    expected, _ = librosa.load(path, sr=rate)
    sound = read_audio(path, rate)
    assert sound.dtype == np.float32
    assert sound.shape == expected.shape
    assert np.array_equal(sound, expected)


@needs("fsdd")
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050])
def test_real_recordings_are_librosas_bit_for_bit(rate):
    paths = sorted((DATA / "fsdd" / "recordings").glob("*.wav"))[::150]
    assert len(paths) == 20
    for path in paths:
        assert np.array_equal(read_audio(path, rate), librosa.load(path, sr=rate)[0]), path


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.arange(-500, 500) / 1000, 16_000, "PCM_16")
    return path


def test_a_truncated_wav_is_no_shorter_sound(wav):
    whole = wav.read_bytes()
    assert len(whole) == 2044
    wav.write_bytes(whole[:1044])
    assert reason(read_audio, wav, 16_000) == "truncated: header says 2,000 bytes of samples, file holds 1,000"
    wav.write_bytes(whole[:-1])
    assert "file holds 1,999" in reason(read_audio, wav, 16_000)


@pytest.mark.parametrize("kept", [1, 3, 11, 12, 20, 30, 43])
def test_a_wav_cut_within_its_header_is_refused(wav, kept):
    wav.write_bytes(wav.read_bytes()[:kept])
    reason(read_audio, wav, 16_000)


def test_a_wav_that_a_pipe_wrote_is_read_to_its_end(wav):
    whole, expected = bytearray(wav.read_bytes()), read_audio(wav, 16_000)
    whole[4:8] = whole[40:44] = b"\xff\xff\xff\xff"
    wav.write_bytes(whole)
    assert np.array_equal(read_audio(wav, 16_000), expected)


def test_chunks_before_the_samples_may_have_an_odd_length(wav):
    whole, expected = wav.read_bytes(), read_audio(wav, 16_000)
    extra = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    changed = whole[:4] + struct.pack("<I", len(whole) - 8 + len(extra)) + whole[8:36] + extra + whole[36:]
    wav.write_bytes(changed)
    assert np.array_equal(read_audio(wav, 16_000), expected)
    wav.write_bytes(changed[:-7])
    assert reason(read_audio, wav, 16_000).endswith("file holds 1,993")


def test_a_wav_without_samples_is_refused(wav):
    soundfile.write(wav, np.zeros(0), 16_000, "PCM_16")
    assert reason(read_audio, wav, 16_000) == "no samples"


def test_samples_that_are_not_finite_are_refused(wav):
    soundfile.write(wav, np.array([0.0, np.nan, np.inf]), 16_000, "FLOAT")
    assert reason(read_audio, wav, 16_000) == "samples that are not finite"


def test_a_truncated_flac_is_refused(tmp_path):
    path = tmp_path / "sound.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.2, 40_000), 16_000)
    path.write_bytes(path.read_bytes()[:-20_000])
    reason(read_audio, path, 16_000)


# Sound in containers


@pytest.mark.parametrize(
    ("codec", "sample_format", "scale"),
    [("pcm_s16le", "s16", 2**15), ("pcm_s32le", "s32", 2**31), ("pcm_f32le", "flt", 1)],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_uncompressed_sound_of_a_container_is_exact(tmp_path, codec, sample_format, scale, channels):
    dtype = {"s16": "<i2", "s32": "<i4", "flt": "<f4"}[sample_format]
    signal = np.random.default_rng(0).uniform(-1, 1, (channels, 30_000)) * (scale if scale == 1 else scale - 1)
    waveform = signal.astype(dtype)
    path = write_video(tmp_path / "clip.avi", noise(21), sound=(codec, waveform, sample_format))
    expected = (waveform.astype(np.float32) / np.float32(scale)).mean(axis=0)
    np.testing.assert_allclose(read_audio(path, 44_100), expected, atol=1e-7)
    resampled = librosa.resample(expected, orig_sr=44_100, target_sr=16_000)
    np.testing.assert_allclose(read_audio(path, 16_000), resampled, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "codec", "audio"),
    [
        ("c.mp4", "libx264", "aac"),
        ("c.flv", "flv", "libmp3lame"),
        ("c.mpg", "mpeg1video", "mp2"),
        ("c.avi", "mpeg4", "mp2"),
    ],
)
def test_compressed_sound_keeps_pitch_length_and_loudness(tmp_path, name, codec, audio):
    sample_format = "s16" if audio == "mp2" else "fltp"
    waveform = tone(1.5)
    if audio == "mp2":
        waveform = (waveform * 32767).astype("<i2")
    path = write_video(tmp_path / name, scene(45), codec, "yuv420p", sound=(audio, waveform, sample_format))
    sound = read_audio(path, 16_000)
    assert abs(len(sound) / 16_000 - 1.5) < 0.1
    middle = sound[4000:20_000]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 440
    loudness = 0.95 if audio == "libmp3lame" else 1.0  # LAME lowers every sound a little, against clipping
    assert np.sqrt((middle**2).mean()) == pytest.approx(loudness * 0.5 / np.sqrt(2), rel=0.02)


@needs("grid")
def test_sound_of_a_real_clip_is_what_another_decoder_makes_of_it():
    """The stream's bytes, taken out of the container, through libsndfile's mpg123."""
    for path in sorted((DATA / "grid" / "s1").glob("*.mpg"))[::15]:
        with av.open(str(path)) as container:
            stream = b"".join(bytes(packet) for packet in container.demux(container.streams.audio[0]))
        expected, rate = soundfile.read(io.BytesIO(stream), dtype="float32")
        assert rate == 44_100
        sound = read_audio(path, rate)
        assert sound.shape == (114 * 1152,)  # whole MP2 frames
        np.testing.assert_allclose(sound, expected.clip(-1, 1).mean(axis=1), atol=1e-4)


# Images


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_grey_colour_and_transparent_images_keep_their_pixels(tmp_path, suffix):
    pixels = noise(1)[0]
    path = tmp_path / f"image.{suffix}"
    lossless = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(path, **lossless)
    assert np.array_equal(read_image(path), pixels)
    transparency = np.full((*pixels.shape[:2], 1), 7, np.uint8)
    Image.fromarray(np.concatenate([pixels, transparency], axis=2)).save(path, **lossless)
    assert np.array_equal(read_image(path), pixels)
    if suffix != "webp":
        Image.fromarray(pixels[..., 0]).save(path)
        assert np.array_equal(read_image(path), pixels[..., :1].repeat(3, axis=2))


def test_a_palette_is_looked_up_and_the_first_frame_of_an_animation_taken(tmp_path):
    palette = noise(2)[0, 0, :4]
    indices = np.random.default_rng(0).integers(0, 4, (20, 30), dtype=np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    for path, options in (
        (tmp_path / "a.png", {}),
        (tmp_path / "b.png", {"transparency": 2}),
        (tmp_path / "c.gif", {}),
    ):
        image.save(path, **options)
        assert np.array_equal(read_image(path), palette[indices])
    image.save(tmp_path / "d.gif", save_all=True, append_images=[image.rotate(180)], duration=50, loop=0)
    assert np.array_equal(read_image(tmp_path / "d.gif"), palette[indices])


def test_cmyk_becomes_rgb(tmp_path):
    ink = {
        (0, 0, 0, 0): (255, 255, 255),
        (255, 0, 0, 0): (0, 255, 255),
        (0, 255, 255, 0): (255, 0, 0),
        (0, 0, 0, 255): (0, 0, 0),
    }
    path = tmp_path / "ink.jpg"
    for colour, expected in ink.items():
        Image.new("CMYK", (32, 32), colour).save(path, quality=95)
        np.testing.assert_allclose(read_image(path).astype(int), np.broadcast_to(expected, (32, 32, 3)), atol=3)


def test_exif_orientation_is_ignored(tmp_path):
    image, exif = Image.fromarray(noise(1)[0]), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "plain.jpg")
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (48, 64, 3)
    assert np.array_equal(read_image(tmp_path / "turned.jpg"), read_image(tmp_path / "plain.jpg"))


@needs("mvsa_single")
def test_real_photographs_are_torchvisions_bit_for_bit():
    paths = sorted((DATA / "mvsa_single" / "data").glob("*.jpg"))[::50]
    assert len(paths) > 40
    for path in paths:
        expected = torchvision.io.decode_image(str(path), mode="RGB").permute(1, 2, 0).numpy()
        assert np.array_equal(read_image(path), expected), path


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_refused_wherever_it_is_cut(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(noise(1)[0]).save(path)
    whole = path.read_bytes()
    for kept in (1, 10, 100, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:kept])
        reason(read_image, path)


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"no page\n", b"\0" * 99, b"\xff\xd8\xff"]
)
def test_what_is_no_image_is_refused_whatever_its_name(tmp_path, content):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    assert reason(read_image, path).startswith("no image of a known format (")


IMPOSTORS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n": "a Git LFS pointer, no data: run `git lfs",
    b"\n <!DOCTYPE html><html><title>429 Too Many Requests</title></html>": "an HTML page, no data",
    b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "a server's message in XML, no data",
    b"\0\5\x16\7\0\2\0\0Mac OS X        ": "an AppleDouble file of macOS, no data",
}


@pytest.mark.parametrize("content", IMPOSTORS, ids=IMPOSTORS.values())
@pytest.mark.parametrize(
    "read", [read_image, lambda path: read_audio(path, 8000), lambda p: read_frames(p, Frames()), probe]
)
def test_what_a_download_left_instead_of_data_is_said_by_name(tmp_path, content, read):
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    assert reason(read, path).startswith(IMPOSTORS[content])


def test_every_depth_of_grey_has_the_same_levels(tmp_path):
    """Pillow's own conversion turns all that is above 255 of 65,535 white."""
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "8.png")
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    names = ["16.png", "16.tif", "16.pgm", "16.jp2"]
    for name in names:
        deep.save(tmp_path / name, **({"irreversible": False} if name == "16.jp2" else {}))
    expected = read_image(tmp_path / "8.png")
    assert np.array_equal(expected[0, :, 0], np.arange(256))
    for name in names:
        assert np.array_equal(read_image(tmp_path / name), expected), name


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16"])
def test_white_is_white_and_black_black_in_every_mode(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "tif" if mode == "PA" else "png"
    for level in (0, 255):
        picture = Image.new("RGB", (8, 8), (level,) * 3)
        if mode == "I;16":
            picture = Image.fromarray(np.full((8, 8), level * 257, np.uint16))
        else:
            picture = picture.convert("P").convert(mode) if mode == "PA" else picture.convert(mode)
        picture.save(tmp_path / f"a.{suffix}")
        assert np.unique(read_image(tmp_path / f"a.{suffix}")).tolist() == [level]


def test_numbers_of_no_known_range_are_refused(tmp_path):
    for number, values in enumerate((np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32))):
        Image.fromarray(values).save(tmp_path / f"{number}.tif")
        assert "whose range is not known" in reason(read_image, tmp_path / f"{number}.tif")


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "jp2", "png", "ppm", "sgi", "tif", "webp", "dds", "avif"])
def test_pictures_of_every_format_are_read_and_their_suffix_is_known(tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    pixels = np.full((16, 16, 3), (200, 200, 200), np.uint8)
    Image.fromarray(pixels).save(path)
    assert np.abs(read_image(path).astype(int) - pixels).max() <= 3
    assert path.suffix in picture_suffixes()


def png_of(width, height):
    """Return a PNG of black pixels, one bit each, written row by row."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@contextmanager
def little_memory(limit):
    """Assert that Python and numpy take less than `limit` bytes inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def test_a_picture_that_is_a_bomb_is_refused_by_its_header(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_of(9_000, 9_000))
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with little_memory(10e6):
        assert reason(read_image, tmp_path / "bomb.png") == "9,000 x 9,000 pixels, more than 67,108,864"


def test_a_sound_that_is_a_bomb_is_refused_by_its_header(tmp_path):
    """Resampled from 1 Hz, 300 KB would be 19 GB."""
    soundfile.write(tmp_path / "slow.wav", np.ones(300_000), 1, subtype="PCM_U8")
    with little_memory(10e6):
        assert reason(lambda path: read_audio(path, 16_000), tmp_path / "slow.wav").startswith(
            "sound of 1 Hz at 16,000 Hz of 19,200,000,000 bytes in memory, more than 2,147,483,648")  # fmt: skip


def test_a_sound_of_too_many_samples_is_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "MAX_BYTES", 1_000_000)
    silence = np.zeros((2_000_000, 2))
    for name in ("long.flac", "long.wav", "long.ogg"):
        soundfile.write(tmp_path / name, silence, 16_000)
        with little_memory(4e6 if name != "long.ogg" else 20e6):
            assert "more than 1,000,000" in reason(lambda path: read_audio(path, 16_000), tmp_path / name)


def test_frames_beyond_the_limit_are_refused_while_they_come(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mkv", greys(60))
    monkeypatch.setattr(media, "MAX_BYTES", 10 * 48 * 64 * 3)
    assert len(read_frames(path, Frames(end=10))) == 10
    assert reason(lambda p: read_frames(p, Frames()), path).startswith("frames of 101,376 bytes in memory")
    monkeypatch.setattr(media, "MAX_PIXELS", 48 * 64 - 1)
    assert reason(lambda p: read_frames(p, Frames(end=1)), path) == "64 x 48 pixels, more than 3,071"


def test_the_picture_on_a_cover_is_no_video(tmp_path):
    plain, song = tmp_path / "plain.mp3", tmp_path / "song.mp3"
    soundfile.write(plain, np.zeros(8000), 8000)
    cover = io.BytesIO()
    Image.fromarray(noise(1)[0]).save(cover, "JPEG")
    content = b"\0image/jpeg\0\3\0" + cover.getvalue()
    frame = b"APIC" + struct.pack(">I", len(content)) + b"\0\0" + content
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    song.write_bytes(b"ID3\3\0\0" + size + frame + plain.read_bytes())
    with av.open(str(song)) as container:
        assert len(container.streams.video) == 1, "what FFmpeg takes it for"
    assert reason(lambda path: read_frames(path, Frames()), song) == "no video stream"
    assert probe(song).num_frames is None


def test_a_video_whose_rate_varies_says_so(tmp_path):
    steady, uneven = write_video(tmp_path / "steady.mkv", greys(40)), tmp_path / "uneven.mkv"
    with av.open(str(uneven), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 30)
        for number, pixels in enumerate(greys(40)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if number < 20 else 20 + 30 * (number - 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert not probe(steady).varies
    assert probe(uneven).varies


# Frames


@pytest.fixture(scope="module")
def lossless(tmp_path_factory):
    """A video of 70 frames at 30000/1001 frames a second, and what it shows, exactly."""
    frames = noise(70)
    return write_video(tmp_path_factory.mktemp("video") / "clip.avi", frames, fps=Fraction(30_000, 1001)), frames


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Frames(), range(70)),
        (Frames(step=29), (0, 29, 58)),
        (Frames(step=None), (0, 29, 58)),  # int(29.97)
        (Frames(step=100), (0,)),
        (Frames(20, 45), range(20, 45)),
        (Frames(0, 70), range(70)),
        (Frames(69, 70), (69,)),
        (Frames(5, 20, 7), (5, 12, 19)),
        (Frames(5, 19, 7), (5, 12)),
        (Frames(start=60), range(60, 70)),
    ],
)
def test_the_frames_wanted_and_no_others(lossless, wanted, numbers):
    path, frames = lossless
    read = read_frames(path, wanted)
    assert read.dtype == np.uint8
    assert np.array_equal(read, frames[list(numbers)])


def test_a_video_that_ends_before_the_window_is_refused_with_counts(lossless):
    path, _ = lossless
    assert reason(read_frames, path, Frames(60, 71)) == "ends early: 70 frames, 71 wanted"
    assert reason(read_frames, path, Frames(start=70)) == "ends early: 70 frames, wanted from frame 70 on"


@pytest.mark.parametrize("name", ["clip.avi", "clip.mp4", "clip.flv", "clip.mkv"])
def test_frames_come_in_the_order_they_are_shown_though_coded_out_of_order(tmp_path, name):
    """In an avi, frames coded out of order carry the time at which they were coded: sorting by time shuffles them."""
    options = {"bf": "3", "b-adapt": "0", "g": "60", "qp": "1"}
    path = write_video(tmp_path / name, greys(220)[::3], "libx264", "yuv420p", options=options)
    with av.open(str(path)) as container:
        kinds = {frame.pict_type for frame in container.decode(video=0)}
    assert PictureType.B in kinds
    levels = read_frames(path, Frames()).mean(axis=(1, 2, 3))
    assert len(levels) == 74
    assert np.array_equal(np.argsort(levels, kind="stable"), np.arange(74))
    np.testing.assert_allclose(levels, np.arange(74) * 3, atol=3)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("c.mp4", "libx264", "yuv420p"),
        ("c.flv", "flv", "yuv420p"),
        ("c.mpg", "mpeg1video", "yuv420p"),
        ("c.avi", "mjpeg", "yuvj420p"),
    ],
)
def test_colours_are_right_in_every_container(tmp_path, name, codec, pix_fmt):
    colours = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 220), (20, 20, 20)] * 6, np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (30, 96, 128, 3))
    path = write_video(tmp_path / name, frames, codec, pix_fmt, fps=25, options={"g": "1", "b": "4000000"})
    read = read_frames(path, Frames())
    assert read.shape == frames.shape
    np.testing.assert_allclose(read.mean(axis=(1, 2)), colours, atol=6)


@pytest.mark.parametrize("size", [(24, 32), (224, 224), (17, 90)])
def test_resized_frames_are_pillows(lossless, size):
    path, frames = lossless
    height, width = size
    read = read_frames(path, Frames(step=35), size)
    assert read.shape == (2, height, width, 3)
    for got, frame in zip(read, frames[::35], strict=True):
        assert np.array_equal(got, Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def test_frames_not_wanted_are_not_held_in_memory(tmp_path):
    frames = greys(200, 240, 320)
    path = write_video(tmp_path / "clip.avi", frames)
    read_frames(path, Frames(step=50))  # what is imported on the way does not count
    tracemalloc.start()
    try:
        assert len(read_frames(path, Frames(step=50))) == 4
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 4 * frames[0].size < peak < 12 * frames[0].size  # kept, stacked, and one in work; of 200


def test_frames_of_different_sizes_are_refused_unless_resized(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 160, "yuvj420p"
        for number, height in enumerate((96, 96, 112)):
            jpeg = io.BytesIO()
            Image.fromarray(noise(1, height, 160)[0]).save(jpeg, "JPEG")
            packet = av.Packet(jpeg.getvalue())
            packet.stream, packet.time_base, packet.pts = stream, Fraction(1, 25), number
            container.mux(packet)
    assert reason(read_frames, path, Frames()).endswith("(height, width): [(96, 160), (112, 160)]")
    assert read_frames(path, Frames(0, 2)).shape == (2, 96, 160, 3)
    assert read_frames(path, Frames(), (50, 60)).shape == (3, 50, 60, 3)


@needs("grid")
def test_real_clips_hold_as_many_frames_as_pictures_start_in_their_bytes():
    paths = sorted((DATA / "grid" / "s1").glob("*.mpg"))
    assert len(paths) == 60
    counts = []
    for path in paths:
        frames = read_frames(path, Frames(), (72, 90))
        with av.open(str(path)) as container:
            stream = b"".join(bytes(packet) for packet in container.demux(container.streams.video[0]))
        assert len(frames) == stream.count(b"\0\0\1\0")  # MPEG-1's picture start code
        counts.append(len(frames))
    assert counts.count(75) == 59
    facts = probe(paths[0])
    assert (facts.num_frames, facts.fps, facts.height, facts.width) == (75, 25.0, 288, 360)
    assert (facts.sample_rate, facts.channels) == (44_100, 2)
    assert facts.seconds == pytest.approx(3.0, abs=0.05)


@needs("nvgesture")
def test_windows_of_real_clips_are_cut_from_all_their_frames():
    folders = sorted((DATA / "nvgesture" / "Video_data").glob("*/*"))
    assert len(folders) == 5
    for path in (folder / name for folder in folders for name in ("sk_depth.avi", "sk_wrapped.avi")):
        whole = read_frames(path, Frames())
        content = path.read_bytes()
        index = content[content.rindex(b"idx1") :]
        assert len(whole) == index.count(b"00dc") == probe(path).num_frames
        assert whole.shape[1:] == (240, 320, 3)
        assert np.array_equal(read_frames(path, Frames(146, 226)), whole[146:226])
        steps = np.abs(np.diff(whole[..., 0].astype(np.int16), axis=0)).mean(axis=(1, 2))
        strides = np.abs(whole[2:, ..., 0].astype(np.int16) - whole[:-2, ..., 0]).mean(axis=(1, 2))
        assert steps.mean() < strides.mean()  # neighbours differ less than frames further apart
        assert f"{len(whole)} frames, 300 wanted" in reason(read_frames, path, Frames(220, 300))


# What cannot be read


CONTAINERS = [
    ("clip.mp4", "libx264", ("aac", "fltp"), {}),
    ("fast.mp4", "libx264", ("aac", "fltp"), {"movflags": "faststart"}),
    ("clip.flv", "libx264", ("aac", "fltp"), {}),
    ("old.flv", "flv", ("libmp3lame", "fltp"), {}),
    ("clip.avi", "mpeg4", ("libmp3lame", "fltp"), {}),
]


@pytest.fixture(scope="module", params=CONTAINERS, ids=[name for name, *_ in CONTAINERS])
def clip(request, tmp_path_factory):
    name, codec, (audio, sample_format), muxer = request.param
    path = tmp_path_factory.mktemp("clips") / name
    return write_video(path, scene(90), codec, "yuv420p", sound=(audio, tone(3), sample_format), muxer=muxer)


@pytest.mark.parametrize("share", [0.8, 0.6, 0.3, 0.1, 0.01])
def test_a_container_cut_anywhere_is_refused_for_sound_and_frames(clip, tmp_path, share):
    whole = clip.read_bytes()
    assert len(read_frames(clip, Frames())) == 90
    assert abs(len(read_audio(clip, 44_100)) - 3 * 44_100) < 5000
    cut = tmp_path / clip.name
    cut.write_bytes(whole[: int(len(whole) * share)])
    reason(read_frames, cut, Frames())
    reason(read_audio, cut, 44_100)


@pytest.mark.parametrize("clip", [CONTAINERS[1], CONTAINERS[2]], ids=["fast.mp4", "clip.flv"], indirect=True)
def test_a_single_packet_cut_at_the_end_is_seen_whichever_stream_it_is_of(clip, tmp_path):
    cut = tmp_path / clip.name
    cut.write_bytes(clip.read_bytes()[:-100])
    assert "packet" in reason(read_frames, cut, Frames())
    assert "packet" in reason(read_audio, cut, 44_100)


def test_frames_before_the_cut_may_be_read(tmp_path, lossless):
    path, frames = lossless
    cut = tmp_path / "cut.avi"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    assert np.array_equal(read_frames(cut, Frames(10, 40)), frames[10:40])
    reason(read_frames, cut, Frames(10, 65))


def test_a_cut_mpg_is_refused_for_its_frames(tmp_path):
    path = write_video(tmp_path / "clip.mpg", scene(60), "mpeg1video", "yuv420p", fps=25)
    whole = path.read_bytes()
    for share in (0.9, 0.5, 0.1):
        path.write_bytes(whole[: int(len(whole) * share)])
        reason(read_frames, path, Frames())


def test_damage_gives_a_result_or_a_reason_and_never_a_word_on_stderr(clip, tmp_path, capfd):
    rng = np.random.default_rng(0)
    whole = clip.read_bytes()
    path = tmp_path / clip.name
    refused = 0
    for place in (*range(0, 2000, 100), *rng.integers(0, len(whole), 20)):
        damaged = bytearray(whole)
        damaged[place : place + 16] = rng.bytes(len(damaged[place : place + 16]))
        path.write_bytes(damaged)
        for read in READERS.values():
            try:
                read(path)
            except MediaError:
                refused += 1
    assert refused >= 40  # the image reader's, at least
    assert capfd.readouterr() == ("", "")


def test_a_container_lacks_a_stream(tmp_path, wav, lossless):
    assert reason(read_frames, wav, Frames()) == "no video stream"
    assert reason(read_audio, lossless[0], 16_000) == "no audio stream"


def test_missing_files_folders_empty_files_and_loops(tmp_path, read):
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert reason(read, tmp_path / "none.wav") == "cannot be opened: no such file or directory"
    assert reason(read, tmp_path) == "a folder, not a file"
    assert reason(read, tmp_path / "empty") == "empty file"
    assert reason(read, tmp_path / "loop") == "cannot be opened: too many levels of symbolic links"
    assert reason(read, tmp_path / "a\0b") == "cannot be opened: embedded null byte"
    assert reason(read, tmp_path / ("x" * 300)) == "cannot be opened: file name too long"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    assert reason(read, tmp_path / "pipe") == "not a regular file"
    assert reason(read, Path(os.devnull)) == "not a regular file"


@contextmanager
def ordinary_user():
    """The superuser may read everything: be somebody else meanwhile."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)


def test_a_file_that_may_not_be_read(wav, read):
    wav.chmod(0)
    with ordinary_user():
        assert reason(read, wav) == "cannot be opened: permission denied"


def test_text_is_refused_whatever_its_name(tmp_path, read):
    path = tmp_path / "clip.mp4"
    path.write_text("Not found\n" * 1000, encoding="utf-8")
    reason(read, path)


def test_a_playlist_opens_no_other_file(tmp_path):
    other = write_video(tmp_path / "other.ts", scene(20), "mpeg1video", "yuv420p", fps=25)
    assert len(read_frames(other, Frames())) == 20
    playlist = tmp_path / "clip.m3u8"
    playlist.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:{other}\n#EXT-X-ENDLIST\n", encoding="utf-8"
    )
    with playlist.open("rb") as file, av.open(file) as container:  # FFmpeg would follow it, to any file or address
        assert sum(1 for _ in container.decode(video=0)) == 20
    assert reason(read_frames, playlist, Frames()).startswith("cannot be decoded")


def test_a_title_in_an_old_encoding_is_no_damage(tmp_path):
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Baer"
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        for frame in (av.VideoFrame.from_ndarray(noise(1)[0], format="rgb24"), None):
            container.mux(stream.encode(frame))
    whole = path.read_bytes()
    assert whole.count(b"Baer") == 1
    path.write_bytes(whole.replace(b"Baer", "B\xe4hr".encode("latin-1")))
    assert np.array_equal(read_frames(path, Frames()), noise(1))


def test_the_content_tells_the_format_and_the_name_may_be_any(tmp_path, wav, lossless, monkeypatch):
    sound, (video, frames) = read_audio(wav, 16_000), lossless
    monkeypatch.chdir(tmp_path)
    for name in (
        "sound.mp4",
        "sound",
        "ein Bär – ぞう.flv",
        "http:sound.wav",
        "-i.wav",
        os.fsdecode(b"latin-\xe9.wav"),
    ):
        Path(name).write_bytes(wav.read_bytes())
        assert np.array_equal(read_audio(Path(name), 16_000), sound), ascii(name)
        Path(name).write_bytes(video.read_bytes())
        assert np.array_equal(read_frames(Path(name), Frames(0, 3)), frames[:3]), ascii(name)
        Image.fromarray(frames[0]).save(name, format="PNG")
        assert np.array_equal(read_image(Path(name)), frames[0]), ascii(name)


def test_a_reason_travels_between_processes():
    assert str(pickle.loads(pickle.dumps(MediaError("empty file")))) == "empty file"


# What files say of themselves


def test_probe_says_what_decoding_finds(clip, wav):
    facts = probe(clip)
    assert facts.num_frames == (91 if clip.suffix == ".avi" else 90)  # FFmpeg writes an avi's header so
    assert (facts.height, facts.width, facts.sample_rate, facts.channels) == (120, 160, 44_100, 2)
    assert facts.fps == pytest.approx(30, abs=0.01)
    assert facts.seconds == pytest.approx(3, abs=0.15)
    assert probe(wav) == Facts(seconds=1000 / 16_000, sample_rate=16_000, channels=1)


def test_probe_of_a_video_without_sound(lossless):
    facts = probe(lossless[0])
    assert (facts.num_frames, facts.height, facts.width) == (70, 48, 64)
    assert facts.fps == pytest.approx(30_000 / 1001, abs=1e-3)
    assert (facts.sample_rate, facts.channels) == (None, None)
