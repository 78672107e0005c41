"""What volumes of both lungs are warned of."""

from __future__ import annotations

import pytest

from xrecon_bundle.segmentation.plausibility import volume_warnings


@pytest.mark.parametrize(
    ("lung_ml", "pneumothorax_ml", "warned"),
    [
        pytest.param(169, 0, "169 mL, too little", id="geometry lost"),
        pytest.param(4800, 0, None, id="an adult"),
        pytest.param(1100, 0, None, id="stiff lungs, in expiration"),
        pytest.param(400, 2500, None, id="lungs collapsed beside air"),
        pytest.param(8500, 0, None, id="emphysema"),
        pytest.param(37_000, 0, "37000 mL, more than a person's", id="voxels twice as wide as they are"),
    ],
)
def test_the_volume_of_both_cavities_counts(lung_ml: float, pneumothorax_ml: float, warned: str | None) -> None:
    warnings = volume_warnings({"total": {"lung_ml": lung_ml, "pneumothorax_ml": pneumothorax_ml}})
    assert len(warnings) == (warned is not None)
    assert warned is None or warned in warnings[0]
