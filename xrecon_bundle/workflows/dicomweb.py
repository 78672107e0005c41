"""A study's radiographs from a DICOMweb server; the CT, its segmentation and report back into the same study."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..datasets.radiograph_study import find_studies, latest_pair
from ..dicom.headers import read_dataset
from ..dicom.web import DICOMwebServer
from ..dicom.write import check_new_folder
from ..files import InputError, check_writable
from ..io.radiograph_files import VIEWS
from ..io.radiograph_tags import MODALITIES, NAMES
from .predictor import Predictor
from .reconstruct import write_reconstruction
from .segment import segment_file

CT, SEGMENTATION, REPORT = "ct", "segmentation.dcm", "segmentation.sr.dcm"


def reconstruct_study(
    url: str,
    predictor: Predictor,
    study: str | None = None,
    patient: str | None = None,
    output_dir: str | Path | None = None,
    segment: bool = False,
) -> dict[str, Any]:
    """Fetch a study's PA and lateral radiograph, reconstruct, and store the CT as a new series of that study.

    Of repeated exposures the last is taken. Nothing is stored before everything is made.

    Args:
        url: root of the server's DICOMweb service.
        predictor: the weights and the options of reading.
        study: StudyInstanceUID.
        patient: PatientID, in place of ``study``, where the patient has one study with radiographs.
        output_dir: new folder that keeps what was stored, and the reports as JSON; None: nothing is kept here.
        segment: also store the lungs and the pneumothorax as a DICOM SEG, and their measures as a structured report.

    Returns:
        the reconstruction's report, with ``study`` and ``stored``, the number of images; with ``segment`` also
        ``pneumothorax``, the statistics.

    Raises:
        InputError: see :class:`.DICOMwebServer`; or the study is not there or has not both views, or they cannot be
            used.
    """
    if bool(study) == bool(patient):
        raise InputError("name one study by its StudyInstanceUID, or a patient by the PatientID")
    if segment:
        from ..dicom.seg import require_highdicom

        require_highdicom()
    if output_dir is not None:
        check_writable(output_dir, folder=True)
        check_new_folder(Path(output_dir))
    server = DICOMwebServer(url)
    uid, series = _with_radiographs(server, study, patient)
    with tempfile.TemporaryDirectory() as fetched:
        pair = _pair(server, uid, server.fetch(uid, series, Path(fetched)))
        with _named_as_on_server(server, uid, pair) as renamed:
            result = predictor(pair)
        result.report["inputs"] = [entry | {"file": renamed(entry["file"])} for entry in result.report["inputs"]]
        result.report["warnings"] = [renamed(warning) for warning in result.report["warnings"]]
        with tempfile.TemporaryDirectory() if output_dir is None else nullcontext(output_dir) as kept:
            folder = Path(kept)
            write_reconstruction(result, folder / CT, "dicom")
            paths = sorted((folder / CT).glob("*.dcm"))
            report = dict(result.report)
            if segment:
                try:
                    report["pneumothorax"] = segment_file(
                        folder / CT, folder / SEGMENTATION, output_format="dicom", view=False
                    )
                except InputError as error:
                    raise InputError(
                        f"{server.url}: study {uid}: the CT cannot be segmented ({error}); nothing was stored"
                    ) from error
                paths += [folder / SEGMENTATION, folder / REPORT]
            server.store(uid, paths)
    return {**report, "study": uid, "stored": len(paths)}


@contextmanager
def _named_as_on_server(server: DICOMwebServer, study: str, paths: Sequence[Path]) -> Iterator[Callable[[str], str]]:
    """A function that names fetched files in a text by their addresses on the server; errors are named so, too."""
    address = {}
    for path in paths:
        header = read_dataset(path, stop_before_pixels=True)
        address[str(path)] = (
            f"{server.url}/studies/{study}/series/{header.SeriesInstanceUID}/instances/{header.SOPInstanceUID}"
        )

    def renamed(text: str) -> str:
        for path, name in address.items():
            text = text.replace(path, name)
        return text

    try:
        yield renamed
    except InputError as error:
        raise InputError(renamed(str(error))) from error


def _with_radiographs(server: DICOMwebServer, study: str | None, patient: str | None) -> tuple[str, list[str]]:
    """The one study that has radiographs, and its series of them."""
    wanted = f"study {study}" if study else f"patient {patient}"
    entries = server.find_studies(study, patient)
    if not entries:
        raise InputError(f"{server.url}: {wanted} is not there; check the number")
    found = {entry: server.series(entry.uid, sorted(MODALITIES)) for entry in entries}
    having = [entry for entry in entries if found[entry]]
    if not having:
        raise InputError(f"{server.url}: {wanted} has no radiographs ({', '.join(sorted(MODALITIES))}); give another")
    if len(having) > 1:
        listed = ", ".join(f"{entry.uid} ({entry.date or 'no date'})" for entry in having)
        raise InputError(f"{server.url}: {wanted} has {len(having)} studies with radiographs; name one: {listed}")
    return having[0].uid, found[having[0]]


def _pair(server: DICOMwebServer, uid: str, paths: Sequence[Path]) -> tuple[Path, Path]:
    """PA and lateral among the radiographs of a study."""
    damaged: dict[Path, str] = {}
    studies = find_studies(paths, damaged)
    complete = [study for study in studies if all(study.views.values())]
    if len(complete) == 1:
        return latest_pair(complete[0])
    counts = " and ".join(f"{sum(len(study.views[view]) for study in studies)} {NAMES[view]}" for view in VIEWS)
    also = f", {len(damaged)} of its {len(paths)} images are damaged" if damaged else ""
    raise InputError(
        f"{server.url}: study {uid} has {counts} chest radiographs by their tags{also}; it needs both views of one "
        "patient: fetch the files, and give them to `xrecon reconstruct` by name if their tags do not say what they are"
    )
