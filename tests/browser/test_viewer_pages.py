"""The viewer's page in a real browser: orientation, what a click does, names that look like HTML."""

from __future__ import annotations

import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from xrecon_bundle.frame import cube_affine
from xrecon_bundle.report.viewer import Overlay, Table, write_viewer

SIZE = 48
EVIL = "<img src=x onerror=document.title=1>"


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Air; a bright block at the patient's left, front and top, where the deviation is high. Label 1 in the opposite
    corner."""
    hu = np.full((SIZE,) * 3, -1000, np.int16)  # LPI: x to the left, y to the back, z to the feet
    hu[30:42, 6:18, 6:18] = 1000
    labels = np.zeros(hu.shape, np.uint8)
    labels[6:18, 30:42, 30:42] = 1
    path = tmp_path_factory.mktemp("viewer") / "page.html"
    write_viewer(
        path,
        EVIL,
        {"CT": hu, EVIL: hu[::-1]},
        cube_affine(SIZE, (3.0, -20.0, 40.0)),
        overlays=[Overlay(EVIL, labels, {1: EVIL})],
        deviation=np.where(hu > 0, 50.0, 0),
        pictures=[(EVIL, hu[:, 12]), ("lateral", hu[36])],
        tables=[Table(EVIL, ["", "mL"], [[EVIL, "1"]])],
        warnings=[EVIL],
        notice="Not for diagnosis.",
    )
    return path


def stage(watched) -> np.ndarray:
    """The canvas as drawn, RGB."""
    watched.page.evaluate("() => { viewer.drawScene(); return new Promise(requestAnimationFrame) }")
    return np.asarray(Image.open(io.BytesIO(watched.page.locator("#stage").screenshot())).convert("RGB")).astype(int)


def centre(mask: np.ndarray) -> tuple[float, float]:
    """Of the marked pixels, from the left and from the top, as shares of the picture."""
    rows, columns = np.nonzero(mask)
    assert len(rows) > 50, "not drawn"
    return columns.mean() / mask.shape[1], rows.mean() / mask.shape[0]


def blue(seen: np.ndarray) -> np.ndarray:
    return seen[..., 2] - seen[..., 0] > 40


def move_to(watched, x: int, y: int, z: int) -> None:
    """The cross-hair to a voxel of the array, through the sliders."""
    sliders = watched.page.locator("#sliders input")
    for slider, value in zip(range(3), (SIZE - 1 - x, SIZE - 1 - y, SIZE - 1 - z), strict=True):  # RAS
        sliders.nth(slider).fill(str(value))


def test_left_is_right_front_is_left_and_head_is_up(chest, watched):
    watched.open(chest)
    watched.ready()
    watched.page.get_by_label(EVIL, exact=True).uncheck()
    move_to(watched, 36, 12, 12)
    place = watched.page.locator("#place").inner_text()
    assert " L, " in place
    assert "1000 HU" in place
    expected = {"Axial": (True, False), "Coronal": (True, False), "Sagittal": (False, False)}
    for plane, (right, low) in expected.items():
        watched.press(plane)
        seen = stage(watched)
        across, down = centre(seen.min(axis=2) > 230)
        assert (across > 0.5, down > 0.5) == (right, low), plane


def test_overlays_are_drawn_where_they_are_and_can_be_switched(chest, watched):
    watched.open(chest)
    watched.ready()
    watched.press("Coronal")
    move_to(watched, 12, 36, 36)
    assert watched.page.locator("#place").inner_text().endswith(f"-1000 HU · {EVIL}")
    across, down = centre(blue(stage(watched)))
    assert across < 0.5
    assert down > 0.5
    watched.page.get_by_label(EVIL, exact=True).uncheck()
    assert blue(stage(watched)).mean() < 0.01


def yellow(seen: np.ndarray) -> np.ndarray:
    return (seen[..., 0] - seen[..., 2] > 60) & (seen[..., 1] > 100)


def test_a_deviation_is_laid_over_the_ct_when_asked_for(chest, watched):
    watched.open(chest)
    watched.ready()
    watched.press("Coronal")
    move_to(watched, 36, 12, 12)
    assert not yellow(stage(watched)).any()
    watched.page.get_by_label("deviation", exact=True).check()
    assert watched.page.locator("#place").inner_text().endswith("1000 HU · deviation 50 HU")
    assert watched.page.locator("#legend").inner_text().endswith("50 HU and more")
    across, down = centre(yellow(stage(watched)))
    assert across > 0.5
    assert down < 0.5
    watched.shot("deviation")
    watched.page.get_by_label("Opacity of deviation").fill("0")
    assert not yellow(stage(watched)).any()


def test_windows_volumes_and_the_rendering(chest, watched):
    watched.open(chest)
    watched.ready()
    watched.shot("phantom")
    watched.press("Axial")
    watched.press("Lung")
    lung = stage(watched).mean()
    watched.press("Bone")
    assert stage(watched).mean() < lung - 10
    move_to(watched, 36, 12, 12)
    assert "1000 HU" in watched.page.locator("#place").inner_text()
    watched.press(EVIL)
    assert "-1000 HU" in watched.page.locator("#place").inner_text()
    watched.press("3D")
    assert stage(watched).max() > 60
    watched.shot("phantom_3d", whole=False)


def test_a_name_that_looks_like_html_is_text(chest, watched):
    watched.open(chest)
    watched.ready()
    assert watched.page.title() == EVIL
    assert watched.page.locator("h1").inner_text() == EVIL
    assert watched.page.locator("img[src=x]").count() == 0


def test_nothing_is_wider_than_the_screen(chest, watched):
    watched.open(chest)
    watched.ready()
    wide, seen = watched.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= seen


def test_a_command_writes_a_page_that_opens(tmp_path, watched):
    from xrecon_bundle.cli import main

    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image((rng.random((20, 30, 40)) * 2000 - 1000).astype(np.int16), np.diag([2.0, 2, 2, 1]))
    nibabel.save(image, tmp_path / "a ct.nii.gz")
    main(["view", str(tmp_path / "a ct.nii.gz")])
    watched.open(tmp_path / "a ct.html")
    watched.ready()
