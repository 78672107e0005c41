"""Style normalisation: undoing a tone curve."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from radiograph_cases import marked_views
from scipy.ndimage import gaussian_filter

from xrecon_bundle import frame
from xrecon_bundle.files import InputError, write_nifti
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.io.radiograph_files import VIEWS, write_radiograph_nifti
from xrecon_bundle.placement.radiographs import load_radiograph_pair
from xrecon_bundle.placement.style import normalise_style


@pytest.fixture
def pair() -> torch.Tensor:
    return torch.from_numpy(gaussian_filter(np.random.default_rng(0).normal(size=(2, 96, 96)), (0, 4, 4))).float()


@pytest.mark.parametrize("reference_pixels", [96, 48])
@pytest.mark.parametrize("curve", [lambda x: x**3, lambda x: torch.sigmoid(8 * (x - 0.4)), torch.sqrt])
def test_matching_undoes_any_tone_curve(curve, reference_pixels, pair, tmp_path):
    unit = torch.as_tensor(radiograph_to_unit(pair))
    reference = unit[:, :: 96 // reference_pixels, :: 96 // reference_pixels]
    write_nifti(tmp_path / "reference.nii.gz", reference.permute(1, 2, 0).numpy(), np.eye(4))
    before = (radiograph_to_unit(curve(unit)) - unit).abs().mean()
    after = (normalise_style(curve(unit), str(tmp_path / "reference.nii.gz")) - unit).abs().mean()
    assert after < 0.01
    assert after < before / 5


def test_clahe_brings_out_what_is_faint_where_it_is(pair):
    faint = torch.where(torch.arange(96) < 48, pair * 0.1, pair + 5)  # the left half is flat
    result = normalise_style(faint, "clahe")
    assert result.dtype == torch.float32
    assert 0 <= result.min() < result.max() <= 1
    before = torch.as_tensor(radiograph_to_unit(faint))
    assert (result[..., :40].std() / before[..., :40].std()) > 1.5


def test_the_loader_passes_the_style_on(tmp_path):
    views = marked_views(64)
    for view, image in zip(VIEWS, views, strict=True):
        write_radiograph_nifti(tmp_path / f"{view}.nii.gz", image**2, view)
    write_nifti(tmp_path / "reference.nii.gz", np.moveaxis(views, 0, -1), frame.radiograph_affine(64))
    paths = [tmp_path / f"{view}.nii.gz" for view in VIEWS]
    styled = load_radiograph_pair(*paths, 64, style=str(tmp_path / "reference.nii.gz"))
    assert (styled - torch.as_tensor(radiograph_to_unit(views))).abs().mean() < 0.02
    np.testing.assert_allclose(styled.affine, frame.radiograph_affine(64), atol=1e-4)


@pytest.mark.parametrize(
    ("style", "message"), [("sepia", "neither 'clahe' nor"), ("view.nii.gz", r"needs a radiograph pair \(U, V, 2\)")]
)
def test_an_unknown_style_is_refused(style, message, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nibabel.save(nibabel.Nifti1Image(pair[0].numpy(), np.eye(4)), "view.nii.gz")
    with pytest.raises(InputError, match=rf"{style}.*{message}"):
        normalise_style(pair, style)
