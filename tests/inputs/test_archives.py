"""Unpacking: all or nothing, and never outside the folder."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import tarfile
import tracemalloc
import zipfile
from contextlib import suppress
from types import SimpleNamespace

import pytest

from benchmark.errors import UserError
from benchmark.inputs import archive_formats
from benchmark.inputs.archives import unpack

FILES = {"list.csv": b"a,1\n", "wav/a.wav": random.Random(0).randbytes(10_000)}


def add(archive, name, content):
    """Add a file of bytes, a folder (None), a symbolic link ("->target") or a hard link ("=>target") to a tar."""
    entry = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        entry.size = len(content)
    elif content is None:
        entry.type = tarfile.DIRTYPE
    else:
        entry.type = tarfile.SYMTYPE if content.startswith("->") else tarfile.LNKTYPE
        entry.linkname = content[2:]
    archive.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)


def tar_of(path, entries, mode="w:gz"):
    """Write a tar of {name: bytes, or the target of a symbolic link}."""
    with tarfile.open(path, mode) as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
    return path


def zip_of(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100644 if isinstance(content, bytes) else 0o120777) << 16
            archive.writestr(entry, content)
    return path


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left(folder):
    """Return what is in a folder beside the archive."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("data."))


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_archives_unpack_into_a_new_folder(tmp_path, make):
    archive = make(tmp_path / "data.archive", FILES)
    unpack(archive, tmp_path / "deep" / "out")
    assert files_below(tmp_path / "deep" / "out") == FILES
    assert left(tmp_path / "deep") == ["out"]
    with pytest.raises(UserError, match="does not exist yet"):
        unpack(archive, tmp_path / "deep" / "out")


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil-of-a-test", "..\\evil"])
def test_an_entry_that_leads_out_is_refused_before_anything_is_written(tmp_path, make, name):
    archive = make(tmp_path / "data.archive", {**FILES, name: b"evil"})
    with pytest.raises(UserError) as caught:
        unpack(archive, tmp_path / "out")
    assert repr(name) in str(caught.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_link_out_of_the_folder_is_refused(tmp_path, make):
    archive = make(tmp_path / "data.archive", {"good": b"x", "link": "../../etc"})
    with pytest.raises(UserError, match="the link or device 'link'"):
        unpack(archive, tmp_path / "out")
    assert left(tmp_path) == []


STEPS = "abcdefghijklmnop"
LONG = "d" * 247
DEEP = "/".join(STEPS)
"""A way through links that a path without links would need more than PATH_MAX for."""


def deep_links():
    """Return entries that make DEEP lead back to the top of the folder, where tarfile's filter cannot follow it."""
    entries, here = {}, ""
    for step in STEPS:
        entries[f"{here}{LONG}/"], entries[f"{here}{step}"] = None, f"->{LONG}"
        here += f"{LONG}/"
    return {**entries, f"{DEEP}/{'l' * 254}": "->" + "../" * len(STEPS)}


BYPASSES = {
    "CVE-2025-4517 a file through links longer than PATH_MAX": {
        **deep_links(),
        "escape": f"->{DEEP}/{'l' * 254}/..",
        "escape/victim": b"evil",
    },
    "CVE-2025-4517 a hard link through them": {
        **deep_links(),
        "escape": f"->{DEEP}/{'l' * 254}/..",
        "hard": "=>escape/victim",
        "hard ": b"",
        "hard/": None,
    },
    "CVE-2025-4138 a link out through them": {**deep_links(), "escape": f"->{DEEP}/{'l' * 254}/../victim"},
    "CVE-2025-4330 a link whose own place is reached through a link": {
        "a/": None,
        "a/b/": None,
        "a/up": "->b/..",
        "a/up/out": "->../victim",
    },
    "CVE-2024-12718 a folder through a link": {"a/": None, "a/up": "->..", "a/up/dir/": None},
    "hops, each inside": {"a": "->.", "a/b": "->..", "a/b/victim": b"evil"},
    "a link, then a file of its name": {"here": "->../victim", "here ": b"x", "./here": b"evil"},
    "a file, then a link of its name": {"here": b"x", "./here": "->../victim"},
    "a folder, then a link of its name": {"here/": None, "./here": "->..", "here/victim": b"evil"},
    "a hard link out": {"hard": "=>../victim"},
    "a hard link to an absolute path": {"hard": "=>/etc/passwd"},
    "a hard link to a link": {"soft": "->x", "x": b"x", "hard": "=>soft"},
    "an absolute link": {"soft": "->/etc"},
    "a link to nothing": {"soft": "->missing"},
    "a link to itself": {"soft": "->soft"},
    "a loop of two links": {"one": "->two", "two": "->one"},
    "a link to the folder it is in": {"a/": None, "a/soft": "->../a"},
    "a link that leaves and comes back": {"x": b"x", "soft": "->../out/x"},
    "a link with a step up after a link": {"a/": None, "a/b/": None, "l": "->a/b", "soft": "->l/../../victim"},
}


@pytest.mark.parametrize("bypass", BYPASSES)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_no_way_out_is_left_to_links(tmp_path, bypass, mode):
    """Some of these leave the folder by `tarfile.extractall(filter="data")` of some release of Python."""
    archive = tmp_path / "data.tar"
    victim = tmp_path / "victim"
    victim.write_bytes(b"safe")
    with tarfile.open(archive, mode) as opened:
        for name, content in BYPASSES[bypass].items():
            add(opened, name.rstrip(" "), content)
    with pytest.raises(UserError, match="entries inside the folder"):
        unpack(archive, tmp_path / "out")
    assert victim.read_bytes() == b"safe"
    assert left(tmp_path) == ["victim"]


def test_a_device_is_refused(tmp_path):
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo("null")
            entry.type, entry.devmajor, entry.devminor = kind, 1, 3
            archive.addfile(entry)
    with pytest.raises(UserError, match="device 'null'"):
        unpack(tmp_path / "data.tar", tmp_path / "out")


def sparse_bomb(path):
    """Write the header of a file of 10 TB, and nothing more."""
    entry = tarfile.TarInfo("zeros")
    entry.size = 10**13
    path.write_bytes(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT)))


def header_bomb(path):
    """Write a header that promises attributes of 1 GB, which tarfile reads into memory at once."""
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, 2**30
    with gzip.open(path, "wb", 1) as file:
        file.write(entry.tobuf(tarfile.USTAR_FORMAT) + bytes(2**22))


@pytest.mark.parametrize("make", [sparse_bomb, header_bomb])
def test_a_bomb_is_refused_by_its_headers(tmp_path, make):
    make(tmp_path / "data.bomb")
    tracemalloc.start()
    with pytest.raises(UserError, match=r"at most|a header of 1,073,741,824 bytes"):
        unpack(tmp_path / "data.bomb", tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert left(tmp_path) == []


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_what_unpacks_to_too_much_is_refused_before_it_is_written(tmp_path, monkeypatch, make):
    archive = make(tmp_path / "data.archive", {f"zeros{i}": bytes(2**20) for i in range(8)})
    monkeypatch.setattr(archive_formats, "FREE_SIZE", 2**21)
    with pytest.raises(UserError, match=r"at most [12],\d{3},\d{3} bytes from .*\(200 times"):
        unpack(archive, tmp_path / "out")
    monkeypatch.setattr(archive_formats, "FREE_SIZE", 2**30)
    monkeypatch.setattr(archive_formats, "MAX_ENTRIES", 7)
    with pytest.raises(UserError, match="at most 7 entries"):
        unpack(archive, tmp_path / "out")
    assert left(tmp_path) == []


def test_empty_headers_and_padding_count_as_well(tmp_path, monkeypatch):
    """Neither has contents that a look at sizes would add up."""
    monkeypatch.setattr(archive_formats, "FREE_SIZE", 2**20)
    for number, content in enumerate((header_of("empty") * 4000, raw_tar(header_of("a"), bytes(2**22)))):
        archive = tmp_path / f"data.{number}"
        archive.write_bytes(gzip.compress(content))
        with pytest.raises(UserError, match=r"at most 1,\d{3},\d{3} bytes from"):
            unpack(archive, tmp_path / "out")


def raw_tar(*headers):
    return b"".join(headers) + bytes(1024)


def header_of(name, **facts):
    entry = tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(entry, key, value)
    return entry.tobuf(tarfile.GNU_FORMAT)


def zip_bytes(*entries, **changes):
    """Return a zip; `changes` overwrite bytes of its directory: {place after the entry's signature: bytes}."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    content = bytearray(buffer.getvalue())
    start = content.rindex(b"PK\x01\x02")
    for place, value in changes.items():
        at = start + int(place.removeprefix("at"))
        content[at : at + len(value)] = value
    return bytes(content)


BAD = {
    "nothing": (b"", "Get it again"),
    "zeros": (bytes(10_240), "Get it again"),
    "text": (b"hello\n" * 500, "Get it again"),
    "a page": (b"\n<!DOCTYPE html><html><body>Quota exceeded</body></html>", "an HTML page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n", "git lfs pull"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive"),
    "rar": (b"Rar!\x1a\x07\x00" + bytes(100), "a RAR archive"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd"),
    "cut gzip": (gzip.compress(raw_tar(header_of("a")))[:-12], "Get it again"),
    "damaged gzip": (gzip.compress(raw_tar(header_of("a")))[:-8] + bytes(8), "Get it again"),
    "damaged bzip2": (b"BZh9" + bytes(100), "Get it again"),
    "damaged xz": (b"\xfd7zXZ\x00" + bytes(100), "Get it again"),
    "gzip of text": (gzip.compress(b"hello"), "Get it again"),
    "a damaged header in the middle": (raw_tar(header_of("a"), b"x" * 512, header_of("b")), "at byte 512"),
    "a tar without an end": (header_of("a"), "Get it again"),
    "a file that ends early": (header_of("a", size=2000) + bytes(1000), "Get it again"),
    "a name too long": (raw_tar(header_of("n" * 300)), "too long"),
    "a path too long": (raw_tar(header_of("/".join(["n" * 200] * 30))), "too long"),
    "a file below a file": (raw_tar(header_of("a"), header_of("a/b")), "below a file"),
    "a file and a folder": (raw_tar(header_of("a/b"), header_of("a")), "different kinds"),
    "a name of nothing": (raw_tar(header_of(".")), "the name"),
    "an empty zip": (b"PK\x05\x06" + bytes(18), "an empty one"),
    "a password": (zip_bytes(("a", b"x"), at8=b"\x01\x00"), "needs a password"),
    "a method unknown": (zip_bytes(("a", b"x"), at10=b"\x09\x00"), "method 9"),
    "a wrong sum": (zip_bytes(("a", b"x"), at16=b"\x00\x00\x00\x00"), "Get it again"),
    "a wrong place": (zip_bytes(("a", b"x"), at42=b"\xff\xff\x00\x00"), "Get it again"),
    "a wrong size": (zip_bytes(("a", b"x"), at20=b"\x00\xff\x00\x00", at24=b"\x00\xff\x00\x00"), "Get it again"),
    "a zip of a file below a file": (zip_bytes(("a", b"x"), ("a/b", b"y")), "below a file"),
    "a zip with a name too long": (zip_bytes(("n" * 300, b"x")), "too long"),
    "a part of a split zip": (b"PK\x07\x08" + zip_bytes(("a", b"x")), "a part of a split zip"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_archive_is_named_and_leaves_nothing(tmp_path, kind):
    content, reason = BAD[kind]
    archive = tmp_path / "data.archive"
    archive.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        unpack(archive, tmp_path / "out")
    assert left(tmp_path) == []


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("seed", range(5))
def test_flipped_bits_are_refused_or_harmless(tmp_path, make, seed):
    """Nothing else than `UserError` is raised, and what comes out of it stays in the folder."""
    draw = random.Random(seed)
    archive = make(tmp_path / "data.archive", {"list.csv": b"a,1\n" * 50, "wav/a.wav": b"0123456789" * 30})
    whole = archive.read_bytes()
    for attempt in range(20):
        content = bytearray(whole)
        for place in draw.sample(range(len(content)), draw.randint(1, 4)):
            content[place] ^= 1 << draw.randrange(8)
        archive.write_bytes(content)
        with suppress(UserError):
            unpack(archive, tmp_path / f"data.{attempt}")
        assert left(tmp_path) == []


def test_places_that_cannot_be_written_are_named(tmp_path, monkeypatch):
    archive = tar_of(tmp_path / "data.tar", FILES)
    (tmp_path / "data.file").write_text("x")
    with pytest.raises(UserError, match=r"data\.file"):
        unpack(archive, tmp_path / "data.file" / "out")
    with pytest.raises(UserError, match="a folder"):
        unpack(tmp_path, tmp_path / "out")
    (tmp_path / "data.link").symlink_to("nowhere")
    with pytest.raises(UserError, match="does not exist yet"):
        unpack(archive, tmp_path / "data.link")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5000))
    with pytest.raises(UserError, match=r"10,004 bytes of room.*got 5,000"):
        unpack(archive, tmp_path / "out")
    assert left(tmp_path) == []


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_permissions_are_those_of_the_umask(tmp_path, make):
    before = os.umask(0o002)
    try:
        unpack(make(tmp_path / "data.archive", FILES), tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o775
    assert stat.S_IMODE((tmp_path / "out/wav/a.wav").stat().st_mode) == 0o664


@pytest.mark.parametrize(
    ("name", "encoding"), [("\u4e2d\u6587.wav", "gbk"), ("\u00e9t\u00e9.wav", "utf-8"), ("\u00e9.wav", "cp437")]
)
def test_names_of_a_zip_that_do_not_say_their_encoding_are_read_as_they_were_written(tmp_path, name, encoding):
    raw = name.encode(encoding)
    content = zip_bytes(("x" * len(raw), b"sound")).replace(b"x" * len(raw), raw)
    (tmp_path / "data.zip").write_bytes(content)
    unpack(tmp_path / "data.zip", tmp_path / "out")
    assert list(files_below(tmp_path / "out")) == [name]


def test_an_encoding_can_be_given(tmp_path, bench_here):
    raw = "\u30c6.wav".encode("shift-jis")
    content = zip_bytes(("x" * len(raw), b"sound")).replace(b"x" * len(raw), raw)
    (tmp_path / "data.zip").write_bytes(content)
    assert bench_here("data", "unpack", "data.zip", "out", "--encoding", "shift-jis").rc == 0
    assert list(files_below(tmp_path / "out")) == ["\u30c6.wav"]
    refused = bench_here("data", "unpack", "data.zip", "out2", "--encoding", "klingon")
    assert refused.rc == 2
    assert "klingon" in refused.said


def test_a_zip_inside_a_tar_does_not_make_it_a_zip(tmp_path):
    inner = zip_bytes(("a", b"x"))
    unpack(tar_of(tmp_path / "data.tar", {"inner.zip": inner}, "w"), tmp_path / "out")
    assert files_below(tmp_path / "out") == {"inner.zip": inner}


def test_backslashes_of_windows_are_folders(tmp_path):
    (tmp_path / "data.zip").write_bytes(zip_bytes(("wav/a.wav", b"x")).replace(b"wav/a", b"wav\\a"))
    unpack(tmp_path / "data.zip", tmp_path / "out")
    assert files_below(tmp_path / "out") == {"wav/a.wav": b"x"}


def test_links_inside_the_folder_are_kept(tmp_path):
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        add(archive, "./", None)
        add(archive, "lists/train.csv", b"a")
        add(archive, "all.csv", "->lists/train.csv")
        add(archive, "other/up.csv", "->../lists/./train.csv")
        add(archive, "same", "->lists")
        add(archive, "hard.csv", "=>lists/train.csv")
    unpack(tmp_path / "data.tar", tmp_path / "out")
    for name in ("all.csv", "other/up.csv", "same/train.csv", "hard.csv"):
        assert (tmp_path / "out" / name).read_bytes() == b"a"


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("size", [0, 40, 5000])
def test_a_cut_archive_leaves_nothing(tmp_path, make, size):
    archive = make(tmp_path / "data.archive", FILES)
    archive.write_bytes(archive.read_bytes()[:size])
    with pytest.raises(UserError, match="Get it again"):
        unpack(archive, tmp_path / "out")
    assert left(tmp_path) == []


def test_an_archive_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        unpack(tmp_path / "data.zip", tmp_path / "out")


def test_the_command_unpacks_a_good_archive_and_names_what_is_wrong_with_another(bench, tmp_path):
    for name, entry in (("good.zip", "lists/train.csv"), ("bad.zip", "../outside.csv")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(entry, "1,2\n")
    assert "1 files" in bench("data", "unpack", "good.zip", "data").said
    assert (tmp_path / "data/lists/train.csv").read_text() == "1,2\n"
    refused = bench("data", "unpack", "bad.zip", "other/folder")
    assert refused.rc == 2
    assert "'../outside.csv'" in refused.said
    assert not list(tmp_path.rglob("outside.csv"))
