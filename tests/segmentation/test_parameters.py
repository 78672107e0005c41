"""Every number of PTX-Seg has a meaning and says what it was chosen on; a number that is changed is used."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from xrecon_bundle.segmentation import PTXSeg
from xrecon_bundle.segmentation.classical import ClassicalSegmenter
from xrecon_bundle.segmentation.parameters import PARAMETERS, Parameters

GROUPS = [field.name for field in dataclasses.fields(Parameters)]


@pytest.mark.parametrize("group", GROUPS)
def test_each_number_says_what_it_means_and_what_it_was_chosen_on(group):
    for field in dataclasses.fields(getattr(PARAMETERS, group)):
        assert set(field.metadata) == {"meaning", "chosen_on"}, field.name
        assert all(field.metadata.values()), field.name


@pytest.mark.parametrize("group", GROUPS)
def test_they_cannot_be_changed_by_accident(group):
    numbers = getattr(PARAMETERS, group)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(numbers, dataclasses.fields(numbers)[0].name, 0)


def test_a_segmenter_with_other_numbers_finds_other_things(collapsed):
    """40 mm of free air are no pneumothorax for one who counts none under two litres."""
    strict = dataclasses.replace(PARAMETERS, pockets=dataclasses.replace(PARAMETERS.pockets, least_ml=2000.0))
    labels = PTXSeg(ClassicalSegmenter(strict))(collapsed.hu, collapsed.spacing)
    assert not (labels > 2).any()
    np.testing.assert_array_equal(labels > 0, PTXSeg()(collapsed.hu, collapsed.spacing) > 0)
