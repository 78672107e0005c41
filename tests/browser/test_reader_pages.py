"""A reader study's pages in a real browser: what a reader opens, and both volumes of a pair."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from xrecon_bundle.datasets.cases import write_case
from xrecon_bundle.files import write_nifti
from xrecon_bundle.frame import cube_affine

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import reader_study
from reader_analysis import read_key

SIZE = 48
LEVELS = {"true": 1000, "reconstructed": 300}  # HU in the middle, so that the page says which volume it shows


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    hu = {}
    for source, level in LEVELS.items():
        hu[source] = np.full((SIZE,) * 3, -1000, np.int16)
        hu[source][12:36, 12:36, 12:36] = level
    write_case(folder / "data" / "anna", hu["true"], cube_affine(SIZE))
    write_nifti(folder / "made" / "anna" / "ct.nii.gz", hu["reconstructed"], cube_affine(SIZE))
    reader_study.make(str(folder / "data"), str(folder / "made"), str(folder / "study"), readers=1, seed=0)
    return folder / "study"


def test_a_reader_goes_from_the_instructions_to_a_page(study, watched):
    key = read_key(study / "key" / "key.csv")
    watched.open(study / "for_readers" / "instructions.html")
    watched.shot("reader_instructions")
    watched.page.get_by_role("link", name="page-001").click()
    watched.ready()
    level = LEVELS[key["page-001"].shows[0]]
    assert f"{level} HU" in watched.page.locator("#place").inner_text()
    assert "anna" not in watched.page.content()
    watched.shot("reader_page")


def test_a_pair_shows_both_volumes_as_the_key_says(study, watched):
    key = read_key(study / "key" / "key.csv")
    watched.open(study / "for_readers" / "pages" / "pair-001.html")
    for number, source in enumerate(key["pair-001"].shows):
        frame = watched.page.frame_locator("iframe").nth(number)
        frame.locator("body[data-ready]").wait_for()
        assert f"{LEVELS[source]} HU" in frame.locator("#place").inner_text()
    watched.shot("reader_pair")
