"""The local page's server: who is let in, what bad files get, that users are apart and nothing stays."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from app_client import Page
from chest_phantom import dicom_slices, phantom, phantom_affine, place_of, save_dicom
from known_chest import KnownChest
from PIL import Image

from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.app import sessions, uploads
from xrecon_bundle.app.server import AppServer
from xrecon_bundle.app.sessions import Work
from xrecon_bundle.cli import main
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.io.readers import read_ct

SIZE = 64


@pytest.fixture(scope="module")
def server(model) -> Iterator[AppServer]:
    made = AppServer(Work(model))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def page(server) -> Iterator[Page]:
    opened = Page(server)
    yield opened
    server.sessions.close(opened.session)


def with_pair(page: Page, case: Path) -> Page:
    for slot in ("pa", "lateral"):
        assert page.send(slot, f"{slot}.png", (case / f"{slot}.png").read_bytes()) == (200, {"name": f"{slot}.png"})
    return page


def test_only_this_machine_can_reach_it(server):
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},  # DNS rebinding: another name that was made to lead here
        {"Host": "evil.example:80"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"X_Xrecon_Token": "guess"},
        {"X_Xrecon_Token": ""},
    ],
)
def test_who_is_not_our_page_is_refused(page, headers):
    for method, path in (("POST", "/api/session"), ("PUT", f"/file/{page.session}/pa?name=a.png")):
        assert page.ask(method, path, b"{}", **headers)[0] == 403


def test_the_page_itself_needs_the_token(page, server):
    assert page.ask("GET", "/")[0] == 403
    assert page.ask("GET", "/?token=guess")[0] == 403
    status, content = page.ask("GET", f"/?token={server.token}")
    assert status == 200
    assert b"http" not in content


@pytest.mark.parametrize("path", ["/../cli.py", "/page/../server.py", "/page.html", "/view/x/../../secret", "/file"])
def test_there_is_nothing_else(page, path):
    assert page.ask("GET", path)[0] in (404, 422)


def test_a_pair_becomes_a_ct_to_look_at_and_to_download(page, case, model, tmp_path):
    with_pair(page, case)
    placed = page.api("place")
    assert placed["picture"].startswith("data:image/png")
    assert placed["record"]["pa"]["file"] == "pa.png"
    assert page.work("reconstruct")["stage"] == "done"
    pair = [str(case / f"{slot}.png") for slot in ("pa", "lateral")]
    main(["reconstruct", *pair, "--output", str(tmp_path / "ct.nii.gz"), "--model", str(model)])
    assert page.api("download", name="ct.nii.gz") == (tmp_path / "ct.nii.gz").read_bytes()
    report = page.api("download", name="ct.json")
    assert report["consistency"] == json.loads((tmp_path / "ct.json").read_text())["consistency"]
    assert [given["file"] for given in report["inputs"]] == ["pa.png", "lateral.png"]
    with zipfile.ZipFile(io.BytesIO(page.api("download", name="ct.zip"))) as archive:
        assert sum(name.endswith(".dcm") for name in archive.namelist()) == SIZE
    status, content = page.ask("GET", f"/view/{page.session}/ct.html")
    assert status == 200
    assert b"CT computed from pa.png and lateral.png" in content
    assert not any(
        str(page.server.sessions.place.name).encode() in text for text in (content, json.dumps(report).encode())
    )


def seen(placed: dict) -> np.ndarray:
    """The picture of a placement, below its words."""
    data = base64.b64decode(placed["picture"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float)[30:]


def test_what_is_turned_and_exchanged_can_be_put_right(page, case):
    # as other programs write them: ours say where they stand
    pa, lateral = (Image.open(case / f"{slot}.png") for slot in ("pa", "lateral"))
    turned = pa.transpose(Image.Transpose.ROTATE_90)  # to the left: a quarter to the right sets it upright

    def placed(first: Image.Image, second: Image.Image, **options: object) -> dict:
        for slot, picture in (("pa", first), ("lateral", second)):
            page.send(slot, f"{slot}.png", png(np.asarray(picture)))
        return page.api("place", **options)

    right = placed(pa, lateral, orientation=[[0, False], [0, False]])
    mended = placed(lateral, turned, exchanged=True, orientation=[[90, False], [0, False]])
    askew = placed(lateral, turned, exchanged=True, orientation=[[270, False], [0, False]])
    assert (mended["record"]["pa"]["turned"], mended["record"]["pa"]["mirrored"]) == (90, False)
    assert np.abs(seen(mended) - seen(right)).mean() < 2
    assert np.abs(seen(askew) - seen(right)).mean() > 10


def test_a_ct_is_segmented_and_measured(page, tmp_path):
    thorax = synthesize_thorax(1, SIZE)
    nibabel.save(nibabel.Nifti1Image(thorax.ct.astype(np.int16), cube_affine(SIZE, (0, 0, 0))), tmp_path / "a.nii.gz")
    assert page.send("ct", "a.nii.gz", (tmp_path / "a.nii.gz").read_bytes())[0] == 200
    assert page.work("segment", of="given")["stage"] == "done"
    statistics = page.api("download", name="segmentation.json")
    assert statistics["ct"] == "a.nii.gz"
    assert statistics["right"]["lung_ml"] > 500
    assert page.ask("GET", f"/view/{page.session}/segmentation.html")[0] == 200


def test_the_label_map_as_dicom_lies_on_the_images_that_were_zipped(page, case, monkeypatch, tmp_path):
    pytest.importorskip("highdicom")
    monkeypatch.setattr(page.server.work, "generator", KnownChest(SIZE))
    with_pair(page, case)
    done = page.work("reconstruct")
    assert done.get("results") == ["ct.nii.gz", "ct.zip", "ct.json"], done
    assert page.work("segment", of="reconstructed")["note"] == ""
    state = page.api("state")
    assert state["results"] == list(sessions.RESULTS)
    for name in state["results"]:
        content = page.api("download", name=name)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        assert page.server.sessions.place.name.encode() not in (tmp_path / name).read_bytes()
    with zipfile.ZipFile(tmp_path / "ct.zip") as archive:
        images = [
            pydicom.dcmread(archive.open(name), stop_before_pixels=True)
            for name in archive.namelist()
            if name.endswith(".dcm")
        ]
    seg = pydicom.dcmread(tmp_path / "segmentation.dcm")
    assert seg.StudyInstanceUID == images[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced <= {image.SOPInstanceUID for image in images}
    labels = nibabel.load(tmp_path / "segmentation.nii.gz")
    for value in np.unique(labels.dataobj)[1:]:
        voxels = np.argwhere(np.asarray(labels.dataobj) == value)
        places = nibabel.affines.apply_affine(labels.affine, voxels)
        found = np.array(sorted(place_of(seg, value)))
        assert len(found) == len(voxels)
        np.testing.assert_allclose(found.mean(axis=0), places.mean(axis=0), atol=0.5)
    report = pydicom.dcmread(tmp_path / "segmentation.sr.dcm")
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert seg.SOPInstanceUID in {
        item.ReferencedSOPInstanceUID for one in evidence for item in one.ReferencedSOPSequence
    }


def test_a_ct_in_dicom_gets_a_label_map_in_dicom(page, tmp_path, monkeypatch):
    pytest.importorskip("highdicom")
    slices = dicom_slices(phantom(phantom_affine()), phantom_affine())
    files = {f"{number}.dcm": path for number, path in enumerate(save_dicom(tmp_path / "series", slices).iterdir())}
    archive = zipped(**{name: path.read_bytes() for name, path in files.items()})
    assert page.send("ct", "a.zip", archive)[0] == 200
    state = page.work("segment", of="given")
    assert state["results"] == [name for name in sessions.RESULTS if name.startswith(("segm", "stat"))]
    content = page.api("download", name="segmentation.dcm")
    seg = pydicom.dcmread(io.BytesIO(content))
    assert seg.PatientID == "P1"
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == slices[0].SeriesInstanceUID
    monkeypatch.setitem(sys.modules, "highdicom", None)
    state = page.work("segment", of="given")
    assert state["results"] == ["segmentation.nii.gz", "segmentation.json"]
    assert state["note"] == (
        "No label map in DICOM: DICOM segmentations need highdicom: pip install 'xrecon-bundle[dicom]'"
    )


def test_no_result_outlives_the_one_it_was_made_of(page, case, monkeypatch, tmp_path):
    monkeypatch.setattr(page.server.work, "generator", KnownChest(SIZE))
    with_pair(page, case)
    page.work("reconstruct")
    page.work("segment", of="reconstructed")
    page.work("reconstruct")
    assert page.api("state")["results"] == ["ct.nii.gz", "ct.zip", "ct.json"]
    hu = synthesize_thorax(1, SIZE).ct.astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, cube_affine(SIZE, (0, 0, 0))), tmp_path / "a.nii.gz")
    page.send("ct", "a.nii.gz", (tmp_path / "a.nii.gz").read_bytes())
    page.work("segment", of="given")
    assert page.api("state")["results"] == ["segmentation.nii.gz", "segmentation.json"]
    assert not list(page.server.sessions.get(page.session).folder.rglob("*.dcm"))


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


NOISE = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
BAD_VIEWS = {
    "empty.png": b"",
    "text.png": b"no picture",
    "cut.png": png(NOISE)[:200],
    "blank.png": png(np.zeros((64, 64), np.uint8)),
    "tiny.png": png(NOISE[:8, :8]),
    "wrong.dcm": b"\0" * 128 + b"DICM" + b"\1" * 50,
    "half.nii.gz": b"\x1f\x8b\x08\0",
    "<img src=x onerror=alert(1)>.png": b"x",
}
BAD_CTS = {
    "text.nii.gz": b"none",
    "none.zip": b"PK\3\4none",
    "empty.zip": zipped(),
    "texts.zip": zipped(**{"a.dcm": b"none"}),
}


@pytest.mark.parametrize("name", BAD_VIEWS)
def test_a_bad_x_ray_gets_the_command_lines_message(page, case, model, tmp_path, name):
    with_pair(page, case)
    plain = uploads.safe_name(name)
    page.send("pa", name, BAD_VIEWS[name])
    status, content = page.call("place")
    assert status == 422
    (tmp_path / plain).write_bytes(BAD_VIEWS[name])
    with pytest.raises(SystemExit) as exit_:
        main(["reconstruct", str(tmp_path / plain), str(case / "lateral.png"), "--output", str(tmp_path / "o.nii.gz")])
    told = str(exit_.value.code).removeprefix("xrecon: error: ")
    assert content["error"] == told.replace(f"{tmp_path}/", "").replace(f"{case}/", "")


@pytest.mark.parametrize("name", BAD_CTS)
def test_a_bad_ct_is_said_in_one_line(page, name):
    status, content = page.send("ct", name, BAD_CTS[name])
    if status == 200:
        content = page.work("segment", of="given")
    assert "\n" not in content["error"]
    assert Path(name).stem in content["error"]
    assert page.server.sessions.place.name not in content["error"]


def test_too_much_is_refused(page, monkeypatch):
    monkeypatch.setitem(uploads.LIMITS_MB, "ct", 1)
    status, content = page.ask("PUT", f"/file/{page.session}/ct?name=a.nii", b"", Content_Length=str(2**21))
    assert (status, content["error"]) == (422, "a.nii has 2 MB, 1 are allowed; use the command line")
    monkeypatch.setattr(uploads, "UNPACKED_MB", 1)
    status, content = page.send("ct", "bomb.zip", zipped(a=bytes(2**21)))
    assert status == 422
    assert "unpacks to more than 1 MB" in content["error"]
    assert not [path for path in page.server.sessions.get(page.session).folder.rglob("*") if path.is_file()]


def test_a_zip_cannot_write_elsewhere(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(**{"../../up.dcm": b"1", "/abs.dcm": b"2", "a/b.dcm": b"3", "..\\win.dcm": b"4"}))
    folder = uploads.unpack(archive, tmp_path / "a")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        f"a/0000{number}.dcm" for number in range(4)
    ]
    assert folder == tmp_path / "a"


def test_a_zip_of_dicom_is_a_ct(tmp_path):
    save_dicom(tmp_path / "series", dicom_slices(phantom(phantom_affine()), phantom_affine()))
    files = {path.name: path.read_bytes() for path in (tmp_path / "series").iterdir()}
    (tmp_path / "a.zip").write_bytes(zipped(**files))

    np.testing.assert_array_equal(
        read_ct(uploads.unpack(tmp_path / "a.zip", tmp_path / "a")).hu, read_ct(tmp_path / "series").hu
    )


@pytest.mark.parametrize(
    "name", ["../../up.png", "..\\up.png", "/etc/passwd", ".hidden", "", "a\0b.png", "x" * 500 + ".png"]
)
def test_a_name_leads_nowhere_else(tmp_path, name):
    path = uploads.receive(io.BytesIO(b"1"), 1, tmp_path / "session", "pa", name)
    assert path.parent == tmp_path / "session" / "pa"
    assert path.name.isprintable()


def test_two_users_do_not_see_each_other(server, case):
    one, other = (with_pair(Page(server), case) for _ in range(2))
    states = {}
    threads = [
        threading.Thread(target=lambda page=page, name=name: states.update({name: page.work("reconstruct")}))
        for name, page in (("one", one), ("other", other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: state["stage"] for name, state in states.items()} == {"one": "done", "other": "done"}
    third = Page(server)
    assert third.call("download", name="ct.nii.gz")[0] == 422
    assert third.call("place") == (422, {"error": "the PA X-ray is missing; drop it into its box"})
    assert third.ask("GET", f"/view/{third.session}/ct.html")[0] == 422


def test_nothing_stays_when_the_page_is_closed(server, case):
    page = with_pair(Page(server), case)
    folder = server.sessions.get(page.session).folder
    assert list(folder.rglob("*.png"))
    body = json.dumps({"token": server.token, "session": page.session}).encode()
    assert page.ask("POST", "/close", body)[0] == 200
    assert not folder.exists()
    assert "load it again" in page.call("state")[1]["error"]


def test_nothing_stays_of_a_page_that_is_not_heard_of(server, case, monkeypatch):
    page = with_pair(Page(server), case)
    folder = server.sessions.get(page.session).folder
    monkeypatch.setattr(sessions, "IDLE_SECONDS", -1)
    server.sessions.sweep()
    assert not folder.exists()


def test_nothing_stays_when_the_server_ends(model, case):
    server = AppServer(Work(model))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with_pair(Page(server), case)
    folder = Path(server.sessions.place.name)
    assert folder.exists()
    server.shutdown()
    server.server_close()
    assert not folder.exists()


def test_a_port_that_is_taken_is_said(server, model):
    with pytest.raises(SystemExit, match="give another with --port"):
        main(["app", "--model", str(model), "--port", str(server.server_port)])
