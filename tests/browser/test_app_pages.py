"""`xrecon app` in a real browser: drop, correct, reconstruct, look, segment, download; bad files; closing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pydicom
import pytest
from browser_shots import SHOTS
from known_chest import KnownChest
from PIL import Image

from xrecon_bundle.app.server import AppServer
from xrecon_bundle.app.sessions import Work

SIZE = 64


@pytest.fixture(scope="module")
def case(case: Path) -> Path:
    """With two files that are none."""
    (case / "bad.png").write_bytes(b"none")
    (case / "bad.nii.gz").write_bytes(b"none")
    return case


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[AppServer]:
    made = AppServer(Work(model))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def drop(watched, slot: str, path: Path) -> None:
    watched.page.locator(f".box[data-slot={slot}] input").set_input_files(path)


def idle(watched) -> None:
    watched.page.locator(".box[data-slot=pa] input:not([disabled])").wait_for(state="attached")


def placed(watched, case: Path) -> str:
    """The pair dropped; the picture of how it was placed."""
    for slot in ("pa", "lateral"):
        drop(watched, slot, case / f"{slot}.png")
        idle(watched)
    return watched.page.locator("#placement").get_attribute("src")


def test_from_two_x_rays_to_a_measured_ct(server, case, watched, monkeypatch):
    monkeypatch.setattr(server.work, "generator", KnownChest(SIZE))
    watched.open(server.address)
    watched.ready()
    watched.shot("app_empty")
    before = placed(watched, case)
    watched.press("Mirror lateral")
    idle(watched)
    assert watched.page.locator("#placement").get_attribute("src") != before
    watched.press("Place by itself")
    idle(watched)
    assert watched.page.locator("#placement").get_attribute("src") == before
    watched.shot("app_placed")
    watched.press("Reconstruct")
    watched.page.frame_locator("#viewer").locator("body[data-ready]").wait_for()
    idle(watched)
    watched.page.wait_for_timeout(1000)
    watched.shot("app_reconstructed", whole=False)
    seen = np.asarray(Image.open(SHOTS / f"app_reconstructed_{watched.width}.png").convert("L"))
    assert (seen > 60).mean() > 0.1  # the CT is drawn, and in sight
    with watched.page.expect_download() as download:
        watched.press("CT (NIfTI)")
    assert nibabel.load(download.value.path().rename(case / "got.nii.gz")).shape == (SIZE,) * 3
    watched.press("Measure pneumothorax")
    watched.page.frame_locator("#viewer").get_by_text("right pneumothorax").first.wait_for()
    idle(watched)
    with watched.page.expect_download() as download:
        watched.press("Label map (DICOM SEG)")
    assert pydicom.dcmread(download.value.path()).Modality == "SEG"
    watched.page.frame_locator("#viewer").locator("body[data-ready]").wait_for()
    watched.page.wait_for_timeout(1000)
    watched.shot("app_measured")
    wide, seen = watched.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= seen


def test_a_ct_is_measured_and_shown(server, case, watched):
    watched.open(server.address)
    watched.ready()
    drop(watched, "ct", case / "ct.nii.gz")
    watched.page.frame_locator("#viewer").get_by_text("right lung").first.wait_for()
    watched.page.frame_locator("#viewer").locator("body[data-ready]").wait_for()
    watched.page.wait_for_timeout(1000)
    watched.shot("app_segmented", whole=False)


def test_a_bad_file_is_said_and_the_next_is_taken(server, case, watched):
    watched.open(server.address)
    watched.ready()
    drop(watched, "ct", case / "bad.nii.gz")
    watched.page.locator("#error", has_text="bad.nii.gz").wait_for()
    idle(watched)
    drop(watched, "pa", case / "bad.png")
    idle(watched)
    drop(watched, "lateral", case / "lateral.png")
    watched.page.locator("#error", has_text="bad.png").wait_for()
    idle(watched)
    assert placed(watched, case).startswith("data:image/png")
    assert watched.page.locator("#error").inner_text() == ""
    # what the server refuses, Chromium logs as an error of loading; that is meant
    watched.complaints = [text for text in watched.complaints if "status of 422" not in text]


def test_closing_the_page_deletes_its_files(server, case, watched):
    watched.open(server.address)
    watched.ready()
    placed(watched, case)
    folder = Path(server.sessions.place.name)
    assert list(folder.rglob("pa.png"))
    watched.page.goto("about:blank")
    watched.page.wait_for_timeout(1000)
    assert not list(folder.rglob("pa.png"))


def test_memory_does_not_grow_over_fifty_reconstructions(server, case):
    work, session = server.work, server.sessions.open()
    session.files = {slot: case / f"{slot}.png" for slot in ("pa", "lateral")}
    used = []
    for _ in range(50):
        server.sessions.get(session.id)  # as its page would
        server.sessions.do(session, lambda tell: work.reconstruct(session, {}, tell))
        used.append(psutil.Process().memory_info().rss / 2**20)
    server.sessions.close(session.id)
    print(f"MiB after 10 and 50 reconstructions: {used[9]:.0f}, {used[-1]:.0f}")
    assert np.mean(used[-5:]) - np.mean(used[8:13]) < 30
