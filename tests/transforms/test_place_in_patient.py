"""A reconstruction gets the place, the name and the shape that its radiographs imply."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from xrecon_bundle.frame import cube_affine, radiograph_affine
from xrecon_bundle.transforms import PlaceInPatientd

SIZE = 8
CENTRE = (10.0, -20.0, 30.0)


def pair(affine: np.ndarray | None) -> MetaTensor:
    meta = {"filename_or_obj": "/somewhere/radiographs.nii.gz"}
    affine = None if affine is None else torch.as_tensor(affine)
    return MetaTensor(torch.zeros(2, SIZE, SIZE), affine=affine, meta=meta)


def test_the_cube_stands_where_the_radiographs_say() -> None:
    volume = MetaTensor(torch.rand(1, SIZE, SIZE, SIZE), affine=torch.eye(4) * 7)
    result = PlaceInPatientd("pred")({"image": pair(radiograph_affine(SIZE, CENTRE)), "pred": volume})
    assert np.allclose(result["pred"].affine, cube_affine(SIZE, CENTRE))
    assert torch.equal(result["pred"].as_tensor(), volume.as_tensor())
    assert result["pred"].meta["filename_or_obj"] == "/somewhere/radiographs.nii.gz"


def test_the_radiographs_and_their_metadata_are_dropped() -> None:
    data = {"image": pair(None), "image_meta_dict": {}, "pred": torch.zeros(1, SIZE, SIZE, SIZE), "case": "a"}
    assert set(PlaceInPatientd("pred")(data)) == {"pred", "case"}
    assert set(data) == {"image", "image_meta_dict", "pred", "case"}


def test_a_marker_is_saved_at_its_place_in_the_patient(tmp_path: Path) -> None:
    volume = torch.zeros(1, SIZE, SIZE, SIZE)
    volume[0, SIZE - 1, 0, 0] = 1000.0  # left, anterior, superior
    result = PlaceInPatientd("pred")({"image": pair(radiograph_affine(SIZE, CENTRE)), "pred": volume})
    SaveImage(tmp_path, "ct", ".nii.gz", separate_folder=False, resample=False, print_log=False)(result["pred"])
    image = nibabel.load(tmp_path / "radiographs_ct.nii.gz")
    voxel = np.argwhere(image.get_fdata() > 500)[0]
    position = image.affine[:3, :3] @ voxel + image.affine[:3, 3]
    left, anterior, superior = position - CENTRE
    assert left < 0 < anterior
    assert superior > 0
