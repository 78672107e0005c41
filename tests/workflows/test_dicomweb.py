"""`xrecon dicomweb` against a small DICOMweb server of this test; against a real Orthanc: `make dicomweb-test`."""

from __future__ import annotations

import copy
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest
import torch
from pydicom.uid import generate_uid
from radiograph_cases import grey_levels, write_dicom

from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.files import InputError
from xrecon_bundle.networks import build_generator
from xrecon_bundle.networks.weights import load_generator, save_weights
from xrecon_bundle.projection.radiographs import simulate_radiographs
from xrecon_bundle.workflows.dicomweb import reconstruct_study
from xrecon_bundle.workflows.predictor import Predictor

pytest.importorskip("dicomweb_client")

SIZE = 64
STUDY, OTHER = generate_uid(), generate_uid()
DIRECTIONS = {"pa": ["L", "F"], "lateral": ["P", "F"]}


class Server(ThreadingHTTPServer):
    """Holds DICOM files; answers searches by study or patient, sends whole series, keeps what it is sent.

    ``status``: what it answers instead; ``body``: the same as text; ``refuses``: instances that it does not keep.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.images: list[pydicom.Dataset] = []
        self.stored: list[pydicom.Dataset] = []
        self.status, self.body, self.refuses = 200, None, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dicom-web"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        parts = path.strip("/").split("/")[1:]
        images = self.server.images
        if self.server.status != 200 or self.server.body is not None:
            self._send(self.server.status, "text/html", (self.server.body or "").encode())
        elif parts == ["studies"]:
            name, _, wanted = query.partition("=")
            found = {image.StudyInstanceUID: image for image in images if image.get(name) == wanted}
            self._json([self._entry(image, "StudyInstanceUID", "PatientID", "StudyDate") for image in found.values()])
        elif parts[2:] == ["series"]:
            found = [image for image in images if image.StudyInstanceUID == parts[1]]
            self._json([self._entry(image, "SeriesInstanceUID", "Modality") for image in found])
        else:
            content = io.BytesIO()
            pydicom.dcmwrite(content, next(image for image in images if image.SeriesInstanceUID == parts[3]))
            body = b"--part\r\nContent-Type: application/dicom\r\n\r\n" + content.getvalue() + b"\r\n--part--"
            self._send(200, 'multipart/related; type="application/dicom"; boundary=part', body)

    def do_POST(self) -> None:
        chunks = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                chunks += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            chunks = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = self.headers["Content-Type"].partition("boundary=")[2].split(";")[0].strip('"').encode()
        parts = [part.partition(b"\r\n\r\n")[2] for part in chunks.split(b"--" + boundary)[1:-1]]
        sent = [pydicom.dcmread(io.BytesIO(part.removesuffix(b"\r\n"))) for part in parts]
        kept = sent[self.server.refuses :]
        self.server.stored += kept
        answer = pydicom.Dataset()
        for name, images in (("ReferencedSOPSequence", kept), ("FailedSOPSequence", sent[: self.server.refuses])):
            items = []
            for image in images:
                item = pydicom.Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
                if name.startswith("Failed"):
                    item.FailureReason = 0x0110
                items.append(item)
            if items:
                setattr(answer, name, items)
        self._send(200, "application/dicom+json", json.dumps(answer.to_json_dict()).encode())

    def _entry(self, image: pydicom.Dataset, *names: str) -> dict:
        entry = pydicom.Dataset()
        for name in names:
            setattr(entry, name, image.get(name, ""))
        return entry.to_json_dict()

    def _json(self, content: list) -> None:
        self._send(200, "application/dicom+json", json.dumps(content).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(radiographs: list[pydicom.Dataset]) -> Iterator[Server]:
    server = Server()
    server.images = list(radiographs)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> list[pydicom.Dataset]:
    """PA and lateral of a synthetic chest, and a CT slice beside them."""
    folder = tmp_path_factory.mktemp("study")
    pair = simulate_radiographs(torch.from_numpy(synthesize_thorax(0, SIZE).ct).float(), SIZE).numpy()
    tags = {"StudyInstanceUID": STUDY, "PatientID": "7", "StudyDate": "20261126", "PatientName": "A^B"}
    for image, (view, directions) in zip(pair, DIRECTIONS.items(), strict=True):
        grey = grey_levels(image, 4095)
        position = {"pa": "PA", "lateral": "LL"}[view]
        own = {"SeriesInstanceUID": generate_uid(), "ViewPosition": position, "PatientOrientation": directions}
        write_dicom(folder / f"{view}.dcm", grey.copy(), **tags, **own)
    write_dicom(folder / "ct.dcm", grey, **tags, SeriesInstanceUID=generate_uid(), Modality="CT")
    return [pydicom.dcmread(folder / name) for name in ("pa.dcm", "lateral.dcm", "ct.dcm")]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    save_weights(build_generator("compact", SIZE).state_dict(), weights)
    return Predictor(load_generator(weights), weights=weights)


@pytest.mark.parametrize("by", [{"study": STUDY}, {"patient": "7"}], ids=["study", "patient"])
def test_a_ct_is_stored_in_the_study_of_its_radiographs(
    by: dict, server: Server, predictor: Predictor, radiographs: list[pydicom.Dataset], tmp_path: Path
) -> None:
    report = reconstruct_study(server.url, predictor, **by, output_dir=tmp_path / "kept")
    assert report["stored"] == len(server.stored) == SIZE
    assert {image.StudyInstanceUID for image in server.stored} == {STUDY}
    assert {(image.PatientID, str(image.PatientName)) for image in server.stored} == {("7", "A^B")}
    kept = [pydicom.dcmread(path) for path in sorted((tmp_path / "kept" / "ct").glob("*.dcm"))]
    assert server.stored == kept
    sources = [item.ReferencedSOPInstanceUID for item in kept[0].SourceImageSequence]
    assert sources == [image.SOPInstanceUID for image in radiographs[:2]]
    expected = [
        f"{server.url}/studies/{STUDY}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}"
        for image in radiographs[:2]
    ]
    written = json.loads((tmp_path / "kept" / "ct" / "reconstruction.json").read_text())
    assert [entry["file"] for entry in report["inputs"]] == expected
    assert [entry["file"] for entry in written["inputs"]] == expected


def test_of_repeated_exposures_the_last_is_taken(server: Server, predictor: Predictor) -> None:
    again = copy.deepcopy(server.images[1])
    again.SOPInstanceUID, again.SeriesInstanceUID, again.AcquisitionTime = generate_uid(), generate_uid(), "120000"
    again.file_meta.MediaStorageSOPInstanceUID = again.SOPInstanceUID
    server.images.insert(1, again)
    report = reconstruct_study(server.url, predictor, study=STUDY)
    assert report["inputs"][1]["file"].endswith(again.SOPInstanceUID)


def _without_lateral(server: Server) -> None:
    del server.images[1]


def _second_study(server: Server) -> None:
    other = copy.deepcopy(server.images[0])
    other.StudyInstanceUID, other.SeriesInstanceUID, other.StudyDate = OTHER, generate_uid(), "20250101"
    server.images.append(other)


def _only_ct(server: Server) -> None:
    del server.images[:2]


def _set(**values: object):
    return lambda server: [setattr(server, name, value) for name, value in values.items()]


def _no_chest(server: Server) -> None:
    for number in (0, 1):
        image = server.images[number] = copy.deepcopy(server.images[number])
        image.PixelData = bytes(range(256)) * (len(image.PixelData) // 256)


FAILURES = {
    "no such study": (lambda server: None, {"study": OTHER}, f"study {OTHER} is not there"),
    "no such patient": (lambda server: None, {"patient": "8"}, "patient 8 is not there"),
    "no lateral": (_without_lateral, {"study": STUDY}, "1 PA and 0 left lateral chest radiographs"),
    "no radiograph": (_only_ct, {"study": STUDY}, "has no radiographs"),
    "two studies": (_second_study, {"patient": "7"}, rf"2 studies .*name one: {OTHER} \(20250101\), {STUDY}"),
    "no chest": (_no_chest, {"study": STUDY}, r"/instances/[0-9.]+ and http"),
    "no password": (_set(status=401), {"study": STUDY}, r"\(401\); put them into ~/.netrc: machine 127.0.0.1 login"),
    "no service": (_set(status=404), {"study": STUDY}, "no DICOMweb there"),
    "a broken server": (_set(status=500), {"study": STUDY}, "refused with status 500"),
    "a web page": (_set(body="<html>"), {"study": STUDY}, "the answer is no DICOMweb"),
    "kept in part": (_set(refuses=3), {"study": STUDY}, "kept 61 of 64 images, FailureReason 0x0110"),
    "nothing named": (lambda server: None, {}, "name one study"),
    "both named": (lambda server: None, {"study": STUDY, "patient": "7"}, "name one study"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_goes_wrong_is_one_line(failure: str, server: Server, predictor: Predictor) -> None:
    spoil, arguments, message = FAILURES[failure]
    spoil(server)
    with pytest.raises(InputError, match=message) as caught:
        reconstruct_study(server.url, predictor, **arguments)
    assert "\n" not in str(caught.value)
    assert "/tmp" not in str(caught.value)
    assert failure == "kept in part" or not server.stored


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9/dicom-web", "no server answers there"),
        ("127.0.0.1:8042", "no address of a server"),
        ("ftp://127.0.0.1/", "no address of a server"),
        ("http://user:secret@127.0.0.1/", "the address holds a password"),
    ],
)
def test_addresses_that_lead_nowhere(url: str, message: str, predictor: Predictor) -> None:
    with pytest.raises(InputError, match=message) as caught:
        reconstruct_study(url, predictor, study=STUDY)
    assert "secret" not in str(caught.value)


def test_a_folder_in_use_is_said_before_the_server_is_asked(
    server: Server, predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    server.status = 500
    with pytest.raises(InputError, match="exists already"):
        reconstruct_study(server.url, predictor, study=STUDY, output_dir=tmp_path)
