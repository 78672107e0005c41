"""Why a pocket of air counts as a pneumothorax or not, as a user asks for it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.segmentation.conftest import SPACING, make_chest
from xrecon_bundle.cli import main
from xrecon_bundle.files import InputError, write_nifti
from xrecon_bundle.workflows.segment import segment_file

# LPI voxels stored as S, L, P, as in test_segment
AFFINE = np.array([[0, SPACING[0], 0, -50], [0, 0, -SPACING[1], 20], [-SPACING[2], 0, 0, 7], [0, 0, 0, 1.0]])


def stored(hu: np.ndarray) -> np.ndarray:
    return hu[::-1].transpose(2, 0, 1)


def test_free_air_and_a_bulla_with_size_place_and_reason(tmp_path, collapsed):
    bulla = make_chest(air="left", depth=40.0, bulla=30.0)
    write_nifti(tmp_path / "ct.nii.gz", stored(bulla.hu), AFFINE)
    statistics = segment_file(tmp_path / "ct.nii.gz", tmp_path / "seg.nii.gz", explain=True)
    assert json.loads((tmp_path / "seg.json").read_text()) == statistics
    pockets = {pocket["side"]: pocket for pocket in statistics["pockets"]}

    assert pockets["left"]["counted"]
    assert pockets["left"]["volume_ml"] == pytest.approx(statistics["left"]["pneumothorax_ml"], rel=0.2)
    assert pockets["left"]["where"].endswith("front")
    assert not pockets["right"]["counted"]
    assert "inside the lung" in pockets["right"]["reason"]
    assert statistics["right"]["pneumothorax_ml"] == 0

    for side, mask in (("left", bulla.labels == 4), ("right", bulla.hu < 1e9)):
        if side == "left":
            voxels = np.argwhere(stored(mask)).mean(axis=0)
        else:  # the bulla's centre is known
            centre = np.array([100, 115, 120]) / SPACING - 0.5
            voxels = np.array([centre[2], mask.shape[0] - 1 - centre[0], centre[1]])
        expected = AFFINE[:3, :3] @ voxels + AFFINE[:3, 3]
        np.testing.assert_allclose(pockets[side]["centre_mm"], expected, atol=3.0)


def test_the_terminal_says_it_in_words(tmp_path, collapsed, capsys):
    write_nifti(tmp_path / "ct.nii.gz", stored(collapsed.hu), AFFINE)
    main(["segment", str(tmp_path / "ct.nii.gz"), "--output", str(tmp_path / "seg.nii.gz"), "--explain"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["pockets"][0]["side"] == "left"
    assert "right: no pocket of air large enough to be judged" in printed.err
    assert "third, front, at" in printed.err
    assert "counted: thick, and the lung bulges into it" in printed.err


def test_without_it_nothing_is_said(tmp_path, collapsed):
    write_nifti(tmp_path / "ct.nii.gz", stored(collapsed.hu), AFFINE)
    assert "pockets" not in segment_file(tmp_path / "ct.nii.gz", tmp_path / "seg.nii.gz")


def test_a_segmenter_of_ones_own_that_does_not_explain(tmp_path, collapsed):
    write_nifti(tmp_path / "ct.nii.gz", stored(collapsed.hu), AFFINE)
    with pytest.raises(InputError, match="does not explain"):
        segment_file(tmp_path / "ct.nii.gz", tmp_path / "seg.nii.gz", lambda hu, spacing: hu, explain=True)
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii.gz"]
