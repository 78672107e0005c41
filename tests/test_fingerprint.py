"""The fingerprint of the code changes with the code, and with nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xrecon_bundle
from xrecon_bundle.fingerprint import code_fingerprint, folder_fingerprint

PACKAGE = Path(xrecon_bundle.__file__).parent


@pytest.fixture
def copied(tmp_path):
    """A copy of the package, with as little as it needs, and a function that prints its fingerprint."""
    for name in ("__init__.py", "fingerprint.py", "frame.py"):
        target = tmp_path / "xrecon_bundle" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(PACKAGE / name, target)

    def fingerprint():
        command = "from xrecon_bundle.fingerprint import code_fingerprint; print(code_fingerprint())"
        return subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True, capture_output=True, text=True)

    return tmp_path / "xrecon_bundle", lambda: fingerprint().stdout.strip()


def test_it_is_a_sha_256_that_stays():
    assert re.fullmatch("[0-9a-f]{64}", code_fingerprint())
    assert code_fingerprint() == code_fingerprint()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param(lambda folder: None, True, id="nothing"),
        pytest.param(lambda folder: (folder / "notes.txt").write_text("no code"), True, id="a file that is no code"),
        pytest.param(lambda folder: (folder / "frame.py").open("a").write("\n"), False, id="one byte"),
        pytest.param(lambda folder: (folder / "frame.py").rename(folder / "moved.py"), False, id="a name"),
        pytest.param(lambda folder: (folder / "more.py").touch(), False, id="an empty module"),
        pytest.param(lambda folder: (folder / "net.pt").write_bytes(b"weights"), False, id="a network's weights"),
    ],
)
def test_it_changes_with_the_code(copied, change, same):
    folder, fingerprint = copied
    before = fingerprint()
    change(folder)
    assert (fingerprint() == before) is same


def test_only_the_rooms_asked_for_count(tmp_path):
    for name in ("io/read.py", "report/draw.py", "frame.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    before = folder_fingerprint(tmp_path, ("io", "frame"))
    (tmp_path / "report/draw.py").write_text("x = 2")
    assert folder_fingerprint(tmp_path, ("io", "frame")) == before
    (tmp_path / "frame.py").write_text("x = 2")
    assert folder_fingerprint(tmp_path, ("io", "frame")) != before


def test_a_room_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no such rooms: attic"):
        folder_fingerprint(tmp_path, ("attic",))
