"""The viewer's page as a file: what it holds, what it may load, how large it gets. tests/browser/ opens it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from chest_phantom import dicom_slices, phantom, phantom_affine, save_dicom

from xrecon_bundle.cli import main
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.report import viewer
from xrecon_bundle.report.viewer import Overlay, viewer_page, write_viewer

NIIVUE = Path(viewer.__file__).parent / "niivue"
AFFINE = nibabel.affines.from_matvec(np.diag([-5.0, -4.0, -3.0]), [11, 22, 33])


def embedded(page: str) -> list[nibabel.Nifti1Image]:
    found = re.findall(r'<script type="text/plain" class="data">([^<]*)</script>', page)
    return [nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text))) for text in found]


def ct(size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (size,) * 3).astype(np.int16)


def test_niivue_is_the_file_that_npm_has_and_its_licences_lie_beside_it():
    licences = (NIIVUE / "LICENSES.txt").read_text()
    assert hashlib.sha256((NIIVUE / "niivue.umd.js").read_bytes()).hexdigest() in licences
    assert "BSD 2-Clause License" in licences


def test_the_volume_is_embedded_as_it_is():
    (image,) = embedded(viewer_page("a", {"CT": ct()}, AFFINE))
    np.testing.assert_array_equal(np.asarray(image.dataobj), ct())
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)


def test_overlays_are_embedded_on_the_same_grid():
    labels = (ct() > 0).astype(np.uint8) * 4
    deviation = np.abs(ct()) / 10.0
    deviation[0, 1, 2] = np.nan
    page = viewer_page("a", {"CT": ct()}, AFFINE, [Overlay("l", labels)], deviation)
    _, one, other = embedded(page)
    np.testing.assert_array_equal(np.asarray(one.dataobj), labels)
    np.testing.assert_allclose(other.get_fdata(), np.nan_to_num(deviation), atol=100 / 255)
    assert '"left pneumothorax"' in page


def corner(size: int = 16) -> np.ndarray:
    """A standard deviation that is the same in no mirror image: 200 HU at the left, in front, near the head."""
    deviation = np.full((size,) * 3, 20.0, np.float32)
    deviation[-size // 4 :, : size // 4, : size // 8] = 200
    return deviation


def test_a_fine_deviation_is_shown_by_blocks_in_the_same_place():
    size = 2 * viewer.LARGEST_DEVIATION_EDGE
    affine = cube_affine(size, (3.0, -20.0, 40.0))
    noise = np.random.default_rng(0).uniform(0, 20, (size,) * 3).astype(np.float32)
    page = viewer_page("a", {"CT": np.zeros((size,) * 3, np.int16)}, affine, deviation=corner(size) + noise)
    volume, shown = embedded(page)
    assert (volume.shape[0], shown.shape[0]) == (size, size // 2)
    high = np.argwhere(corner(size) > 100)
    where = nibabel.affines.apply_affine(shown.affine, np.argwhere(shown.get_fdata() > 100))
    np.testing.assert_allclose(where.mean(axis=0), nibabel.affines.apply_affine(affine, high.mean(axis=0)), atol=0.01)
    assert "The deviation is shown in voxels of 2.8 x 2.8 x 2.8 mm" in page


@pytest.mark.parametrize(
    ("highest", "top"), [(0.0, 1), (0.4, 0.5), (99.0, 100), (100.0, 100), (240.0, 300), (701, 800)]
)
def test_the_colours_of_a_deviation_end_at_a_round_number(highest, top):
    deviation = np.full((8,) * 3, highest)
    deviation[0, 0, 0] *= 20  # a single voxel does not decide
    deviation[1] = 0
    page = viewer_page("a", {"CT": ct(8)}, AFFINE, deviation=deviation)
    settings = json.loads(re.search(r'id="settings">([^<]*)<', page)[1])
    assert settings[1] == {"name": "deviation", "kind": "deviation", "top": top}


def test_a_fine_ct_is_shown_by_blocks_in_the_same_place():
    fine = np.zeros((600, 8, 8), np.int16)
    fine[300:303] = 900
    labels = (fine > 0).astype(np.uint8)
    affine = np.diag([0.5, 1.0, 1.0, 1.0])
    page = viewer_page("a", {"CT": fine}, affine, [Overlay("l", labels)])
    volume, shown = embedded(page)
    assert volume.shape == shown.shape == (200, 8, 8)
    where = nibabel.affines.apply_affine(volume.affine, np.argwhere(np.asarray(volume.dataobj) == 900)[0])
    np.testing.assert_allclose(where, nibabel.affines.apply_affine(affine, [301, 0, 0]), atol=1e-4)
    np.testing.assert_array_equal(np.asarray(shown.dataobj) == 1, np.asarray(volume.dataobj) == 900)
    assert "Shown in voxels of 1.5 x 1 x 1 mm" in page


def test_what_would_be_too_large_is_rounded_and_said(monkeypatch):
    exact = len(viewer_page("a", {"CT": ct(48)}, AFFINE))
    monkeypatch.setattr(viewer, "LARGEST_PAGE", exact - 20_000)
    page = viewer_page("a", {"CT": ct(48)}, AFFINE)
    assert len(page) < exact - 20_000
    (image,) = embedded(page)
    step = int(re.search(r"Shown in steps of (\d+) HU", page)[1])
    assert np.abs(np.asarray(image.dataobj).astype(int) - ct(48)).max() <= step / 2


def test_what_rounding_leaves_too_large_is_shown_by_blocks(monkeypatch):
    empty = len(viewer_page("a", {"CT": np.zeros((48,) * 3, np.int16)}, AFFINE))
    monkeypatch.setattr(viewer, "LARGEST_PAGE", empty + 100_000)
    page = viewer_page("a", {"CT": ct(48), "other": ct(48)}, AFFINE)
    assert len(page) < viewer.LARGEST_PAGE
    volume, other = embedded(page)
    assert volume.shape == other.shape == (24, 24, 24)
    np.testing.assert_allclose(volume.affine, AFFINE @ viewer._coarser(np.eye(4), (2, 2, 2)), atol=1e-4)
    means = ct(48).reshape(24, 2, 24, 2, 24, 2).mean(axis=(1, 3, 5))
    assert np.abs(np.asarray(volume.dataobj) - means).max() <= viewer.STEPS_HU[-1] / 2
    assert "Shown in voxels of 10 x 8 x 6 mm" in page


@pytest.mark.slow
def test_a_page_of_a_noisy_224_volume_with_all_overlays_is_small_enough():
    """Noise of 30 HU in every voxel, the air too, and in the deviation: less compressible than any CT."""
    size = 224
    rng = np.random.default_rng(0)
    labels = np.zeros((size,) * 3, np.uint8)
    labels[20:100, 50:170, 30:190] = 1
    labels[120:200, 50:170, 30:190] = 2
    hu = (np.where(labels > 0, -850, 40) + 30 * rng.standard_normal(labels.shape, np.float32)).astype(np.int16)
    deviation = 40 + 40 * rng.random(labels.shape, np.float32)
    pictures = [("noise", rng.random((448, 448)))] * 4
    page = viewer_page("a", {"CT": hu}, cube_affine(size), [Overlay("l", labels)], deviation, pictures)
    assert len(page.encode()) < viewer.LARGEST_PAGE
    for image, given in zip(embedded(page), (hu, labels, deviation), strict=True):
        half = np.asarray(image.get_fdata())[: image.shape[0] // 2]
        assert half.mean() == pytest.approx(given[: size // 2].mean(), rel=0.02)


def test_the_page_runs_only_its_own_two_scripts_and_loads_nothing():
    page = viewer_page("a", {"CT": ct()}, AFFINE)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"sha256-([^']+)", policy) == digests
    assert "http" not in policy


def test_names_are_text():
    evil = "</script><img src=x onerror=alert(1)>"
    page = viewer_page(evil, {evil: ct()}, AFFINE, warnings=[evil], pictures=[(evil, np.eye(8))], notice=evil)
    assert "<img src=x" not in page


def test_the_same_result_gives_the_same_page():
    assert viewer_page("a", {"CT": ct()}, AFFINE) == viewer_page("a", {"CT": ct()}, AFFINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(ct(), AFFINE), tmp_path / "ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image((ct() > 0).astype(np.uint8), AFFINE), tmp_path / "labels.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image((ct() > 0).astype(np.uint8), AFFINE + 1.0 * np.eye(4, 4, 3)), tmp_path / "elsewhere.nii.gz"
    )
    nibabel.save(nibabel.Nifti1Image(ct() / 3.0, AFFINE), tmp_path / "fractions.nii.gz")
    deviation = nibabel.Nifti1Image(corner(), AFFINE)
    nibabel.save(deviation.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]])), tmp_path / "deviation.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"none")
    return tmp_path


def test_view_writes_a_page_beside_the_ct(folder, capsys):
    main(["view", str(folder / "ct.nii.gz"), str(folder / "labels.nii.gz")])
    assert capsys.readouterr().out == f"wrote {folder / 'ct.html'}\n"
    assert len(embedded((folder / "ct.html").read_text())) == 2


def test_labels_on_turned_axes_are_brought_to_the_ct(folder):
    turned = nibabel.load(folder / "labels.nii.gz").as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    nibabel.save(turned, folder / "turned.nii.gz")
    main(["view", str(folder / "ct.nii.gz"), str(folder / "turned.nii.gz")])
    np.testing.assert_array_equal(np.asarray(embedded((folder / "ct.html").read_text())[1].dataobj), ct() > 0)


def test_a_deviation_on_turned_axes_is_laid_over_the_ct(folder):
    files = [str(folder / name) for name in ("ct.nii.gz", "labels.nii.gz", "deviation.nii.gz")]
    main(["view", *files[:2], "--deviation", files[2]])
    shown = embedded((folder / "ct.html").read_text())[2]
    np.testing.assert_allclose(shown.affine, AFFINE, atol=1e-4)
    np.testing.assert_allclose(shown.get_fdata(), corner(), atol=1)


def test_what_is_negative_is_no_deviation(folder):
    with pytest.raises(SystemExit, match="no standard deviation"):
        main(["view", str(folder / "ct.nii.gz"), "--deviation", str(folder / "fractions.nii.gz")])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("none.nii.gz", "no such file"),
        ("bad.nii.gz", "cannot be read as NIfTI"),
        ("elsewhere.nii.gz", "not on the grid"),
        ("fractions.nii.gz", "not a label map"),
    ],
)
def test_labels_that_cannot_be_shown_are_refused(folder, labels, said):
    with pytest.raises(SystemExit, match=said):
        main(["view", str(folder / "ct.nii.gz"), str(folder / labels)])
    assert not (folder / "ct.html").exists()


def test_the_page_of_a_reconstruction_is_not_replaced_by_one_that_says_less(folder):
    (folder / "ct.json").write_text('{"placement": {}, "consistency": {}, "estimates": null}')
    (folder / "ct.html").write_text("the page of the reconstruction")
    with pytest.raises(SystemExit, match="give another name as --output"):
        main(["view", str(folder / "ct.nii.gz")])
    assert (folder / "ct.html").read_text() == "the page of the reconstruction"
    main(["view", str(folder / "ct.nii.gz"), "--output", str(folder / "other.html")])
    assert len(embedded((folder / "other.html").read_text())) == 1


def test_the_page_beside_a_reconstructed_series_may_be_made_again(tmp_path):
    """The reconstruction's own page lies in the series' folder."""
    affine = phantom_affine()
    save_dicom(tmp_path / "ct", dicom_slices(phantom(affine), affine))
    (tmp_path / "ct" / "reconstruction.json").write_text('{"placement": {}, "consistency": {}, "estimates": null}')
    for _ in range(2):
        main(["view", str(tmp_path / "ct")])
    assert len(embedded((tmp_path / "ct.html").read_text())) == 1


def test_a_page_is_html(folder):
    with pytest.raises(SystemExit, match="a name that ends in"):
        main(["view", str(folder / "ct.nii.gz"), "--output", str(folder / "page.pdf")])


def test_write_viewer_leaves_one_file(tmp_path):
    write_viewer(tmp_path / "page.html", "a", {"CT": ct()}, AFFINE)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
