"""Real radiographs in: every format and orientation, field of view, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from radiograph_cases import (
    CENTRE_MM,
    DETECTOR_MM,
    FORMATS,
    brightest_mm,
    marked_views,
    marker_on_detector_mm,
)

from xrecon_bundle.transforms.load_radiograph import load_radiograph
from xrecon_bundle.transforms.radiograph_files import VIEWS, view_affine

PIXELS = 192


@pytest.fixture(scope="module")
def views() -> np.ndarray:
    return marked_views(PIXELS)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_the_marker_where_the_convention_says(name, view, views, tmp_path):
    case = FORMATS[name]
    path = tmp_path / f"{view}{case.suffix}"
    original = views[VIEWS.index(view)]
    case.write(path, original, view)
    loaded = load_radiograph(path, view, PIXELS, **case.arguments)
    assert loaded.shape == (1, PIXELS, PIXELS)
    assert brightest_mm(loaded[0].numpy()) == pytest.approx(marker_on_detector_mm()[view], abs=DETECTOR_MM / PIXELS)
    centre = CENTRE_MM if case.positioned else (0, 0, 0)
    np.testing.assert_allclose(loaded.affine, view_affine(view, PIXELS, centre), atol=1e-3)
    grey = loaded[0].numpy()
    scale, shift = np.polyfit(grey.ravel(), original.ravel(), 1)
    assert np.abs(scale * grey + shift - original).mean() < case.error * np.ptp(original)
    assert scale > 0
