"""Which two files of a DICOM folder are the PA and the lateral radiograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from radiograph_cases import write_dicom

from xrecon_bundle.datasets.radiograph_pairs import choose_radiographs
from xrecon_bundle.files import InputError

STORED = np.arange(64, dtype=np.uint16).reshape(8, 8)
PA = {"ViewPosition": "PA"}
LATERAL = {"ViewPosition": "LL"}


def code(value: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "view"
    return item


def study(folder: Path, **files: dict[str, Any]) -> Path:
    for name, tags in files.items():
        write_dicom(folder / f"{name}.dcm", STORED, **{"StudyInstanceUID": "1.2"} | tags)
    return folder


@pytest.mark.parametrize(
    ("pa", "lateral"),
    [
        (PA, LATERAL),
        (PA, {"ViewPosition": "LATERAL"}),
        ({"ViewPosition": "P.A."}, {"ViewPosition": "Left Lateral"}),
        ({"ViewCodeSequence": [code("272479007")]}, {"ViewCodeSequence": [code("399173006")]}),
        ({"ViewCodeSequence": [code("R-10214", "SRT")]}, {"ViewCodeSequence": [code("R-10236", "SRT")]}),
        ({"PatientOrientation": ["L", "F"]}, {"PatientOrientation": ["P", "F"]}),
        ({"PatientOrientation": ["L", "F"]}, {"PatientOrientation": ["A", "F"]}),
        ({"SeriesDescription": "W033 Chest PA"}, {"SeriesDescription": "W034 Chest LAT"}),
        ({"ProtocolName": "thorax_pa"}, {"ProtocolName": "thorax_lateral"}),
        (PA | {"SeriesDescription": "Chest PA and lateral"}, LATERAL | {"SeriesDescription": "Chest PA and lateral"}),
        (PA | {"BodyPartExamined": "CHEST"}, LATERAL | {"Modality": "CR", "BodyPartExamined": "THORAX"}),
    ],
)
def test_view_is_told_by(pa: dict[str, Any], lateral: dict[str, Any], tmp_path: Path) -> None:
    folder = study(tmp_path, a=lateral, b=pa)
    assert choose_radiographs(folder) == (folder / "b.dcm", folder / "a.dcm")


@pytest.mark.parametrize(
    "other",
    [
        {"ViewPosition": "AP"},
        {"ViewPosition": "RL"},
        {"ViewPosition": "PA", "Modality": "CT"},
        {"ViewPosition": "PA", "PresentationIntentType": "FOR PROCESSING"},
        {"ViewPosition": "PA", "BodyPartExamined": "HAND"},
        {"SeriesDescription": "Chest PA and lateral"},
        {},
    ],
)
def test_passed_over(other: dict[str, Any], tmp_path: Path) -> None:
    folder = study(tmp_path, pa=PA, lateral=LATERAL, zz=other | {"AcquisitionTime": "235959"})
    (folder / "notes.txt").write_text("not DICOM")
    assert choose_radiographs(folder) == (folder / "pa.dcm", folder / "lateral.dcm")


def test_of_repeated_exposures_the_last_is_taken(tmp_path: Path) -> None:
    times = {"first": "101500", "last": "103000", "second": "102000.5"}
    folder = study(tmp_path, lateral=LATERAL, **{name: PA | {"AcquisitionTime": at} for name, at in times.items()})
    assert choose_radiographs(folder)[0].name == "last.dcm"


def test_views_of_two_studies_are_no_pair(tmp_path: Path) -> None:
    folder = study(tmp_path, pa=PA, lateral=LATERAL | {"StudyInstanceUID": "1.3"})
    with pytest.raises(InputError, match=r"no DICOM study with a PA and a left lateral .*2 of either view found"):
        choose_radiographs(folder)


def test_two_studies_are_refused(tmp_path: Path) -> None:
    other = {"StudyInstanceUID": "1.3"}
    folder = study(tmp_path, pa=PA, lateral=LATERAL, pa2=PA | other, lateral2=LATERAL | other)
    with pytest.raises(InputError, match="2 studies"):
        choose_radiographs(folder)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 of either view found"):
        choose_radiographs(tmp_path)
