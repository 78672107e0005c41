"""From an evaluation's report to a case's page in a real browser: both CTs in turn, each with its own label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from xrecon_bundle.anatomy.pneumothorax import Pneumothorax
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.frame import hu_to_unit
from xrecon_bundle.projection.radiographs import simulate_radiographs
from xrecon_bundle.report.case_pages import CasePages
from xrecon_bundle.report.evaluation import evaluate_case, write_evaluation

SIZE = 64


def lungs_alone(hu: np.ndarray, spacing: object) -> np.ndarray:
    """A segmenter that finds nothing but the left lung; the truth has all regions."""
    labels = np.zeros(hu.shape, np.uint8)
    labels[SIZE // 2 :][hu[SIZE // 2 :] < -500] = 2
    return labels


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    thorax = synthesize_thorax(1, SIZE, Pneumothorax("right", 0.4))
    hu = torch.from_numpy(thorax.ct.astype(np.float32))
    truth = hu_to_unit(hu)[None]
    labels = np.where(thorax.labels <= 4, thorax.labels, 0).astype(np.uint8)
    pages = CasePages(folder, 2)
    wrong = (truth + 200 / 2500).clip(0, 1)
    case = evaluate_case("case & 1#", simulate_radiographs(hu), wrong, truth, lungs_alone, labels, pages)
    write_evaluation(folder, [case], "Reconstructed CT against true CT", ["Of a synthetic thorax."], pages)
    return folder / "report.html"


def test_from_the_report_to_both_cts_of_a_case(report, watched):
    watched.open(report)
    watched.shot("evaluation_report")
    watched.page.get_by_role("link", name="Look at both CTs").click()
    watched.ready()
    true, reconstructed = (
        watched.page.get_by_label(f"label map of the {name} CT", exact=True) for name in ("true", "reconstructed")
    )
    assert (true.is_checked(), reconstructed.is_checked()) == (True, False)
    watched.page.wait_for_timeout(500)
    watched.shot("evaluation_case_true")
    before = watched.page.locator("#place").inner_text()
    watched.press("reconstructed CT")
    assert (true.is_checked(), reconstructed.is_checked()) == (False, True)
    after = watched.page.locator("#place").inner_text()
    level = [int(text.split(" HU")[0].split(" · ")[-1]) for text in (before, after)]
    assert level[1] - level[0] == 200
    watched.page.wait_for_timeout(500)
    watched.shot("evaluation_case_reconstructed")
    wide, seen = watched.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= seen
