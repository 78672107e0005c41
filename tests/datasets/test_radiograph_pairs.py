"""Which DICOM radiographs of a folder of patients make pairs, whatever anonymisation did to their UIDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from radiograph_cases import write_dicom

from xrecon_bundle.datasets.radiograph_pairs import choose_radiographs, find_pairs
from xrecon_bundle.files import InputError

STORED = np.arange(64, dtype=np.uint16).reshape(8, 8)
BOTH = {"pa": "PA", "lateral": "LL"}


def write(folder: Path, views: dict[str, str] = BOTH, **tags: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, position) in enumerate(views.items()):
        write_dicom(folder / f"im {name}", STORED + number, **({"ViewPosition": position, "PatientID": "1"} | tags))


def found(folder: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    pairs, problems = find_pairs(folder)
    return {pair.case: [str(path.relative_to(folder)) for path in pair.files] for pair in pairs}, problems


@pytest.mark.parametrize(
    ("tags", "cases"),
    [
        (dict(StudyInstanceUID=""), ["a", "b"]),
        (dict(StudyInstanceUID=None), ["a", "b"]),
        (dict(StudyInstanceUID="1.2", SOPInstanceUID="1.3"), ["a", "b"]),
        (dict(StudyInstanceUID="1.2", SOPInstanceUID=""), ["a", "b"]),
        (dict(StudyInstanceUID="1.2", SeriesInstanceUID="", PatientID=""), ["a", "b"]),
        (dict(StudyInstanceUID="../../elsewhere"), ["a", "b"]),  # no UID, and no way out of the output folder
        (dict(StudyInstanceUID=".."), ["a", "b"]),
    ],
    ids=["empty", "missing", "all the same", "no SOP UIDs", "the same and no patients", "a path", "up"],
)
@pytest.mark.filterwarnings("ignore")
def test_two_patients_whatever_their_uids(tags, cases, tmp_path):
    write(tmp_path / "a", **tags)
    write(tmp_path / "b", **({"PatientID": "2"} | tags))
    pairs, problems = found(tmp_path)
    assert pairs == {case: [f"{case}/im pa", f"{case}/im lateral"] for case in cases}
    assert problems == {}


def test_one_study_for_two_patients_in_one_folder_is_two_cases(tmp_path):
    for patient in ("1", "2"):
        views = {f"{name} {patient}": position for name, position in BOTH.items()}
        write(tmp_path / "all", views, StudyInstanceUID="1.2", PatientID=patient)
    pairs, problems = found(tmp_path)
    assert pairs == {f"all{end}": [f"all/im pa {n}", f"all/im lateral {n}"] for end, n in (("", 1), ("-2", 2))}
    assert problems == {}


def test_a_patient_named_in_one_file_alone_is_the_studys(tmp_path):
    write(tmp_path, {"pa": "PA"}, StudyInstanceUID="1.2", PatientID="1")
    write(tmp_path, {"lateral": "LL"}, StudyInstanceUID="1.2", PatientID="")
    assert list(found(tmp_path)[0]) == ["1.2"]


def test_copies_count_once_and_raw_data_and_hands_not_at_all(tmp_path):
    write(tmp_path / "a", StudyInstanceUID="1.2", SOPInstanceUID="1.2.3")
    for name in ("pa", "lateral"):
        (tmp_path / f"copy of {name}").write_bytes((tmp_path / "a" / f"im {name}").read_bytes())
    write(tmp_path / "raw", StudyInstanceUID="1.2", PresentationIntentType="FOR PROCESSING")
    write(tmp_path / "hand", {"hand": "PA"}, StudyInstanceUID="1.2", BodyPartExamined="HAND")
    pairs, problems = found(tmp_path)
    assert list(pairs) == ["1.2"]
    assert problems == {}


def test_pa_and_lateral_of_two_patients_are_never_a_pair(tmp_path):
    for number, (name, position) in enumerate(BOTH.items()):
        write(tmp_path / "all", {name: position}, StudyInstanceUID="", PatientID=str(number))
    pairs, problems = found(tmp_path)
    assert pairs == {}
    assert sorted(problems) == ["all", "all-2"]
    with pytest.raises(InputError, match="2 of either view found"):
        choose_radiographs(tmp_path)


def test_a_study_that_is_no_pair_is_listed_each_under_its_own_name(tmp_path):
    for patient in ("1", "2"):
        write(tmp_path / "all", {f"pa {patient}": "PA"}, StudyInstanceUID="1.2", PatientID=patient)
    pairs, problems = found(tmp_path)
    assert pairs == {}
    assert len(problems) == 2


def test_a_folder_that_someone_may_take_for_a_patient_is_named(tmp_path):
    files = {
        "ann": ["pa.png", "lateral.png", "pa_lungs.png"],
        "bob": ["frontal.PNG", "side.jpg"],
        "cleo": [],
        "dora": ["pa.png"],
        "eve/today": ["pa.png", "lateral.png"],
        "eve": ["overview.jpg"],
        "notes": ["readme.txt"],
        ".hidden": ["scan.png"],
    }
    for place, names in files.items():
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            (tmp_path / place / name).touch()
    (tmp_path / "overview.png").touch()
    pairs, problems = found(tmp_path)
    assert set(pairs) == {"ann", "eve/today"}
    assert problems == {
        "bob": f"{tmp_path / 'bob'}: its pictures are not called pa and lateral; rename them",
        "cleo": f"{tmp_path / 'cleo'}: an empty folder; put the patient's pa and lateral there, or remove it",
        "dora": f"{tmp_path / 'dora'}: there is no lateral file beside the other view; add it, or rename it",
    }
