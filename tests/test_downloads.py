"""Downloads from a server on this machine: whole, cut, resumed, refused. Nothing here reaches the internet."""
import hashlib
import io
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from minivit import downloads
from minivit.downloads import ARCHIVES, Archive, fetch


def packed(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


DATA = np.random.RandomState(7).bytes(300_007)
GOOD = packed(**{"toy/train.bin": DATA, "toy/test.bin": DATA[:1009]})
BAD = GOOD[:-7] + b"changed"  # as many bytes


class Server(ThreadingHTTPServer):
    """Serves ``files[path]``, down to byte ``cut[path]``; a path in ``plain`` knows no Range, one in ``skewed`` gets it wrong."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.plain, self.skewed, self.asked = {}, {}, set(), set(), []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        body = self.server.files.get(self.path)
        if body is None:
            return self.send_error(404)
        start = 0
        if wanted and self.path not in self.server.plain:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) + (self.path in self.server.skewed)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : self.server.cut.get(self.path)])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def offer(server, monkeypatch):
    """Publish the set "toy" under the given paths, by the digest of ``body``."""

    def publish(*paths: str, body: bytes = GOOD) -> None:
        urls = tuple(map(server.url, paths))
        archive = Archive("toy.tgz", "toy", len(body), hashlib.sha256(body).hexdigest(), urls)
        monkeypatch.setitem(ARCHIVES, "toy", archive)

    return publish


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


WHOLE = ["toy", "toy.tgz", "toy/test.bin", "toy/train.bin"]


def test_a_download_is_announced_checked_and_unpacked(server, offer, tmp_path, capsys):
    server.files["/a"] = GOOD
    offer("/a")
    folder = fetch("toy", tmp_path / "new/root")
    assert folder == tmp_path / "new/root/toy"
    assert (folder / "train.bin").read_bytes() == DATA
    assert listing(folder.parent) == WHOLE
    said = capsys.readouterr().out
    assert "toy: downloading 0 MB to" in said
    assert "at 50 Mbit/s" in said
    assert server.url("/a") in said
    assert fetch("toy", tmp_path / "new/root") == folder  # from now on without asking
    assert server.asked == [("/a", None)]
    assert capsys.readouterr().out == ""


def test_the_default_place_is_in_the_cache(server, offer, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIVIT_CACHE", str(tmp_path / "cache"))
    server.files["/a"] = GOOD
    offer("/a")
    assert fetch("toy") == tmp_path / "cache/datasets/toy"
    monkeypatch.delenv("MINIVIT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert downloads.cache_dir() == tmp_path / ".cache/minivit"


def test_what_was_cut_is_resumed_with_a_range(server, offer, tmp_path):
    server.files["/a"], server.cut["/a"] = GOOD, 100_003
    offer("/a")
    with pytest.raises(ConnectionError, match=f"ended after 100003 of {len(GOOD)} bytes.*run again to go on"):
        fetch("toy", tmp_path)
    assert listing(tmp_path) == ["toy.tgz.part"]
    assert (tmp_path / "toy.tgz.part").read_bytes() == GOOD[:100_003]
    del server.cut["/a"]
    fetch("toy", tmp_path)
    assert server.asked == [("/a", None), ("/a", "bytes=100003-")]
    assert listing(tmp_path) == WHOLE


def test_the_next_source_goes_on_where_the_first_broke_off(server, offer, tmp_path):
    server.files = {"/a": GOOD, "/b": GOOD}
    server.cut["/a"] = 200_003
    offer("/a", "/b")
    fetch("toy", tmp_path)
    assert server.asked == [("/a", None), ("/b", "bytes=200003-")]
    assert listing(tmp_path) == WHOLE


def test_a_server_without_ranges_sends_everything_again(server, offer, tmp_path):
    server.files["/a"] = GOOD
    server.plain.add("/a")
    offer("/a")
    (tmp_path / "toy.tgz.part").write_bytes(GOOD[:1009])
    fetch("toy", tmp_path)
    assert server.asked == [("/a", "bytes=1009-")]
    assert listing(tmp_path) == WHOLE


def test_a_server_that_sends_another_range_is_passed_over(server, offer, tmp_path):
    server.files = {"/a": GOOD, "/b": GOOD}
    server.skewed.add("/a")
    offer("/a", "/b")
    (tmp_path / "toy.tgz.part").write_bytes(GOOD[:1009])
    fetch("toy", tmp_path)
    assert server.asked == [("/a", "bytes=1009-"), ("/b", "bytes=1009-")]
    assert listing(tmp_path) == WHOLE


@pytest.mark.parametrize("left, asked", [(GOOD, []), (GOOD + b"more", [("/a", None)])], ids=["complete", "too long"])
def test_other_leftovers(server, offer, tmp_path, left, asked):
    server.files["/a"] = GOOD
    offer("/a")
    (tmp_path / "toy.tgz.part").write_bytes(left)
    fetch("toy", tmp_path)
    assert server.asked == asked
    assert listing(tmp_path) == WHOLE


def test_a_wrong_checksum_is_refused_and_only_the_bad_part_removed(server, offer, tmp_path):
    server.files["/a"] = BAD
    offer("/a")
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError) as error:
        fetch("toy", tmp_path)
    for text in (server.url("/a"), hashlib.sha256(BAD).hexdigest(), hashlib.sha256(GOOD).hexdigest()):
        assert text in str(error.value)
    assert listing(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize(
    "first",
    [None, BAD, b"<html>Please log in.</html>", GOOD + b"more"],
    ids=["dead", "changed", "a page", "longer"],
)
def test_a_mirror_that_fails_is_passed_over(server, offer, tmp_path, first):
    server.files = {"/a": first, "/b": GOOD}
    offer("/a", "/b")
    fetch("toy", tmp_path)
    assert server.asked == [("/a", None), ("/b", None)]
    assert listing(tmp_path) == WHOLE


def test_when_no_source_delivers_each_is_named_with_the_way_out(server, offer, tmp_path):
    offer("/a", "/b")
    with pytest.raises(ConnectionError) as error:
        fetch("toy", tmp_path)
    for text in (server.url("/a"), server.url("/b"), "404", f"put your own toy.tgz into {tmp_path}"):
        assert text in str(error.value)
    assert listing(tmp_path) == []


def test_a_host_that_is_down_is_no_traceback_of_sockets(server, offer, tmp_path):
    offer("/a")
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="toy could not be downloaded .*refused"):
        fetch("toy", tmp_path)


def test_a_copy_of_ones_own_is_used(server, offer, tmp_path):
    offer("/a")
    (tmp_path / "toy.tgz").write_bytes(GOOD)
    assert fetch("toy", tmp_path) == tmp_path / "toy"
    (tmp_path / "toy.tgz").unlink()
    assert fetch("toy", tmp_path) == fetch("toy", str(tmp_path / "toy")) == tmp_path / "toy"
    assert server.asked == []


def test_a_bad_copy_of_ones_own_is_named_and_left_alone(server, offer, tmp_path):
    offer("/a")
    (tmp_path / "toy.tgz").write_bytes(BAD)
    with pytest.raises(ValueError, match=f"toy.tgz has SHA-256 {hashlib.sha256(BAD).hexdigest()} instead of"):
        fetch("toy", tmp_path)
    assert (tmp_path / "toy.tgz").read_bytes() == BAD
    assert server.asked == []


@pytest.mark.parametrize("member", ["../evil", "toy/../../evil", "link"])
def test_a_member_that_would_land_outside_is_refused(server, offer, tmp_path, member):
    body = packed(**{"toy/train.bin": DATA, member: b"evil"})
    if member == "link":
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            entry = tarfile.TarInfo("toy")
            entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path)
            tar.addfile(entry)
        body = stream.getvalue()
    server.files["/a"] = body
    offer("/a", body=body)
    with pytest.raises(ValueError, match="toy.tgz was not unpacked"):
        fetch("toy", tmp_path / "root")
    assert listing(tmp_path) == ["root", "root/toy.tgz"]


@pytest.mark.parametrize(
    "body, message",
    [(packed(other=b"1"), "holds no folder toy"), (GOOD[:-101], "was not unpacked")],
    ids=["other content", "cut short"],
)
def test_an_archive_of_another_kind_leaves_no_folder(offer, tmp_path, body, message):
    offer("/a", body=body)
    (tmp_path / "toy.tgz").write_bytes(body)
    with pytest.raises(ValueError, match=message):
        fetch("toy", tmp_path)
    assert listing(tmp_path) == ["toy.tgz"]


def test_a_small_disk_is_said_before_anything_is_asked(server, offer, tmp_path, monkeypatch):
    server.files["/a"] = GOOD
    offer("/a")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, len(GOOD)))
    with pytest.raises(OSError, match=r"toy needs \d MB in .*pass root= or set MINIVIT_CACHE"):
        fetch("toy", tmp_path)
    assert server.asked == []


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="no download called 'mnist'; there are cifar10, cifar100, imagenette"):
        fetch("mnist")


def test_the_table_agrees_with_torchvision():
    from torchvision.datasets import CIFAR10, CIFAR100, Imagenette

    for name, kind in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        archive = ARCHIVES[name]
        assert (archive.file, archive.folder, archive.urls[-1]) == (kind.filename, kind.base_folder, kind.url)
    assert ARCHIVES["imagenette"].urls[-1] == Imagenette._ARCHIVES["160px"][0]
    for archive in ARCHIVES.values():
        assert len(bytes.fromhex(archive.sha256)) == 32
        assert all(url.startswith("https://") and url.endswith(archive.file) for url in archive.urls)
