"""The pictures and the report: planes in the radiologist's view, figures that are those of the cases."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
from pathlib import Path
from urllib.parse import unquote

import nibabel
import numpy as np
import pytest
import torch

from xrecon_bundle.anatomy.pneumothorax import Pneumothorax
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.frame import hu_to_unit
from xrecon_bundle.projection.radiographs import simulate_radiographs
from xrecon_bundle.report.case_pages import CasePages
from xrecon_bundle.report.evaluation import EvaluatedCase, evaluate_case, write_evaluation
from xrecon_bundle.report.figures import draw_case, orthogonal_planes, plane_position
from xrecon_bundle.report.html import figure_uri
from xrecon_bundle.report.viewer import LARGEST_PAGE
from xrecon_bundle.segmentation import PTXSeg


def test_planes_stand_upright_with_the_patients_left_on_the_right() -> None:
    volume = np.zeros((5, 6, 7))
    volume[4, 0, 1] = 1  # left, anterior, superior
    planes = orthogonal_planes(volume, at=(4, 0, 1))
    row, column = np.argwhere(planes["coronal"])[0]
    assert (row, column) == (1, 4)  # near the top, at the right edge
    row, column = np.argwhere(planes["sagittal"])[0]
    assert (row, column) == (1, 0)  # near the top, anterior at the left edge
    row, column = np.argwhere(planes["axial"])[0]
    assert (row, column) == (0, 4)  # anterior at the top, patient's left at the right


@pytest.mark.parametrize(("label", "at"), [(None, (4, 4, 4)), (1, (4, 4, 4)), (4, (6, 1, 2))])
def test_planes_are_cut_through_the_pneumothorax_if_there_is_one(label: int | None, at: tuple[int, ...]) -> None:
    segmentation = np.zeros((8, 8, 8), np.uint8)
    if label:
        segmentation[6, 1, 2] = label
    assert plane_position(segmentation, segmentation.shape) == at


@pytest.fixture(scope="module")
def case() -> EvaluatedCase:
    """A synthetic chest with a pneumothorax, reconstructed with an error of 50 HU everywhere."""
    thorax = synthesize_thorax(1, 64, Pneumothorax("right", 0.4))
    hu = torch.from_numpy(thorax.ct.astype(np.float32))
    truth = hu_to_unit(hu)[None]
    wrong = (truth + 50 / 2500).clip(0, 1)
    segmentation = np.where(thorax.labels <= 4, thorax.labels, 0).astype(np.uint8)
    return evaluate_case("chest", simulate_radiographs(hu), wrong, truth, PTXSeg(), segmentation)


def test_a_known_error_is_measured(case: EvaluatedCase) -> None:
    assert case.values["mae_hu"] == pytest.approx(50, abs=1)
    assert case.values["psnr"] == pytest.approx(-20 * np.log10(50 / 2500), abs=0.1)
    assert case.values["true_occupancy"] == pytest.approx(0.4, abs=0.02)
    assert case.values["radiograph_correlation"] > 0.95


def test_the_report_shows_every_case_and_its_figures(case: EvaluatedCase, tmp_path: Path) -> None:
    better = EvaluatedCase("better", case.values | {"psnr": 50.0, "mae_hu": 30.0}, case.picture)
    write_evaluation(tmp_path, [better, case], "A title & more", ["An introduction."])
    rows = {row["case"]: row for row in csv.DictReader((tmp_path / "metrics.csv").open())}
    assert float(rows["chest"]["psnr"]) == case.values["psnr"]
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary["cases"] == 2
    assert summary["mean"]["mae_hu"] == pytest.approx((30 + case.values["mae_hu"]) / 2)
    assert summary["agreement"]["occupancy"]["n"] == 2
    page = (tmp_path / "report.html").read_text()
    assert "A title &amp; more" in page
    assert page.index('<h3 style="margin:0 0 8px">chest</h3>') < page.index('<h3 style="margin:0 0 8px">better</h3>')
    assert page.count("data:image/jpeg;base64,") == 4  # two cases, two plots


def evaluated(folder: Path, errors: dict[str, float], most: int) -> dict[str, str]:
    """Cases with an error in HU each, and the addresses of their pages in the report."""
    thorax = synthesize_thorax(1, 32)
    truth = hu_to_unit(torch.from_numpy(thorax.ct.astype(np.float32)))[None]
    pages = CasePages(folder, most)
    old = set((folder / "pages").glob("*"))
    cases = []
    for name, error in errors.items():
        wrong = (truth + error / 2500).clip(0, 1)
        cases.append(evaluate_case(name, torch.rand(2, 32, 32), wrong, truth, pages=pages))
        assert len(set((folder / "pages").glob("*")) - old) <= most
    write_evaluation(folder, cases, "Title", [], pages)
    html = (folder / "report.html").read_text()
    return dict(re.findall(r'<h3 [^>]*>([^<]*)</h3>\s*<p[^>]*><a href="([^"]*)"', html))


def test_the_worst_cases_have_a_page_and_no_more_of_them_than_asked_for(tmp_path: Path) -> None:
    found = evaluated(tmp_path, {"b 1#": 50, "a": 10, "c": 90, "d": 20, "e": 50}, most=3)
    assert list(found) == ["c", "b 1#", "e"]
    assert [(tmp_path / unquote(address)).is_file() for address in found.values()] == [True] * 3
    # again: one page less, and what is there of other evaluations goes
    assert list(evaluated(tmp_path, {"a": 10, "c": 90}, most=1)) == ["c"]
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["c.html"]
    assert evaluated(tmp_path, {"a": 10}, most=0) == {}
    assert list((tmp_path / "pages").iterdir()) == []


def test_a_page_holds_both_cts_and_their_label_maps(tmp_path: Path) -> None:
    thorax = synthesize_thorax(1, 64, Pneumothorax("right", 0.4))
    hu = torch.from_numpy(thorax.ct.astype(np.float32))
    truth = hu_to_unit(hu)[None]
    wrong = (truth + 50 / 2500).clip(0, 1)
    segmentation = np.where(thorax.labels <= 4, thorax.labels, 0).astype(np.uint8)
    evaluate_case("a", simulate_radiographs(hu), wrong, truth, PTXSeg(), segmentation, CasePages(tmp_path, 1))
    page = (tmp_path / "pages" / "a.html").read_text()
    layers = json.loads(re.search(r'id="settings">([^<]*)<', page)[1])
    assert [layer["name"] for layer in layers[:2]] == [layer["of"] for layer in layers[2:]]
    data = re.findall(r'<script type="text/plain" class="data">([^<]*)</script>', page)
    arrays = [nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text))).get_fdata() for text in data]
    np.testing.assert_allclose(arrays[0], np.clip(thorax.ct, -1024, 1476), atol=1)
    np.testing.assert_allclose(arrays[1], np.clip(thorax.ct, -1024, 1476 - 50) + 50, atol=1)
    np.testing.assert_array_equal(arrays[2], segmentation)
    assert set(np.unique(arrays[3])) <= {0, 1, 2, 3, 4}
    assert len(page) < LARGEST_PAGE


def test_a_report_without_segmenter_has_no_regions(case: EvaluatedCase, tmp_path: Path) -> None:
    image_only = {name: value for name, value in case.values.items() if "occupancy" not in name and "_ml" not in name}
    write_evaluation(tmp_path, [EvaluatedCase("a", image_only, case.picture)], "Title", [])
    assert "Bland-Altman" not in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["agreement"] == {}


def test_a_case_without_truth_can_be_drawn() -> None:
    figure = draw_case(np.random.default_rng(0).random((2, 16, 16)), np.zeros((16, 16, 16)), title="only this")
    assert len(figure.axes) == 6
    assert figure_uri(figure).startswith("data:image/jpeg;base64,")
