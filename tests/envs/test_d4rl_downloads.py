"""Fetching published files, from a server in this process."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest

from steelyard.envs import d4rl_table, datasets, downloads
from steelyard.envs.datasets import DatasetError


class Handler(BaseHTTPRequestHandler):
    """Answers with what the test put into `content`; "short.hdf5" promises more than it sends."""

    def __init__(self, content: dict[str, bytes], *arguments):
        self.content = content
        super().__init__(*arguments)

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        body = self.content.get(name)
        self.content[f"asked for {name}"] = b""
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) * (2 if name == "short.hdf5" else 1)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def content() -> dict[str, bytes]:
    return {}


@pytest.fixture
def address(content: dict[str, bytes]) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), partial(Handler, content))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    path = tmp_path / "whole.hdf5"
    with h5py.File(path, "w") as file:
        for key, array in (("observations", np.zeros((3, 11))), ("actions", np.zeros((3, 3))), ("rewards", np.ones(3))):
            file[key] = array
        file["terminals"] = np.array([False, False, True])
    return path.read_bytes()


def test_a_d4rl_name_is_downloaded_once(
    content: dict[str, bytes], address: str, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    entry = d4rl_table.Entry(0.0, 10.0, f"{address}/files/hopper_tiny-v9.hdf5", 1000, "Hopper-v4")
    monkeypatch.setitem(d4rl_table.TABLE, "hopper-tiny-v9", entry)
    content["hopper_tiny-v9.hdf5"] = whole
    cache = tmp_path / "cache"
    dataset = datasets.load("hopper-tiny-v9", cache)
    assert (dataset.name, dataset.task, len(dataset)) == ("hopper-tiny-v9", "Hopper-v4", 3)
    assert dataset.normalized(5.0) == 50.0
    assert [file.name for file in cache.iterdir()] == ["hopper_tiny-v9.hdf5"]
    content.clear()
    assert len(datasets.load("hopper-tiny-v9", cache)) == 3
    assert content == {}, "the second time nobody asks the server"


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("missing.hdf5", None, "Not Found"),
        ("short.hdf5", "whole", "the connection ended after"),
        ("page.hdf5", b"<html>busy</html>", "no complete HDF5 file"),
        ("cut.hdf5", "half", "no complete HDF5 file"),
        ("door-v0_demos_clipped.hdf5", "whole", "another checksum than the published 3,118,318 bytes"),
    ],
)
def test_a_failed_download_says_where_to_put_the_file_and_leaves_nothing(
    content: dict[str, bytes], address: str, whole: bytes, tmp_path: Path, name: str, body: bytes | str | None, message: str
):
    if body is not None:
        content[name] = {"whole": whole, "half": whole[: len(whole) // 2]}.get(body, b"") if isinstance(body, str) else body
    cache = tmp_path / "cache"
    with pytest.raises(DatasetError, match=message) as error:
        downloads.fetch(f"{address}/{name}", cache)
    assert f"{address}/{name}" in str(error.value)
    assert str(cache / name) in str(error.value)
    assert list(cache.iterdir()) == []


def test_no_server_at_all(tmp_path: Path):
    with pytest.raises(DatasetError, match="could not be downloaded"):
        downloads.fetch("http://127.0.0.1:9/x.hdf5", tmp_path)


def test_a_folder_that_cannot_be_made(content: dict[str, bytes], address: str, whole: bytes, tmp_path: Path):
    content["x.hdf5"] = whole
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="could not be downloaded"):
        downloads.fetch(f"{address}/x.hdf5", tmp_path / "file" / "below")


def test_a_known_checksum_is_accepted(content: dict[str, bytes], address: str, whole: bytes, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(downloads.CHECKSUMS, "x.hdf5", (len(whole), hashlib.sha256(whole).hexdigest()))
    content["x.hdf5"] = whole
    assert downloads.fetch(f"{address}/x.hdf5", tmp_path).read_bytes() == whole
