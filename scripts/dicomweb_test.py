"""`make dicomweb-test`: `xrecon dicomweb` against a real Orthanc on this machine's loopback interface.

Needs Debian's packages orthanc and orthanc-dicomweb. The LIDC patient's simulated PA and lateral radiograph are stored
as DX images by STOW-RS, found, reconstructed, and CT, segmentation and report stored back; all is fetched again and has
to be what was made. Then what can go wrong. Everything stays in build/dicomweb-test.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from deploy_test import PIXELS, TAGS, write_dx, write_study
from deployment import SHIPPED, SIZE
from pydicom.uid import generate_uid
from zoo import ROOT

from xrecon_bundle.datasets.lidc import fetch_lidc
from xrecon_bundle.dicom.web import DICOMwebServer
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.workflows.predictor import Predictor
from xrecon_bundle.workflows.reconstruct import reconstruct_files
from xrecon_bundle.workflows.simulate import simulate_case

WORK = ROOT / "build" / "dicomweb-test"
ORTHANC = Path("/usr/sbin/Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "reader", "loopback-only"
STARTS_WITHIN_S = 60


def main() -> None:
    """Every step in turn; the first that fails ends the test."""
    if not (ORTHANC.exists() and PLUGIN.exists()):
        sys.exit("dicomweb-test: no Orthanc; apt-get install orthanc orthanc-dicomweb")
    shutil.rmtree(WORK, ignore_errors=True)
    case = WORK / "case"
    simulate_case(fetch_lidc(ROOT / ".cache")[0], case, spatial_size=PIXELS)
    study = write_study(WORK / "study", case)
    netrc = WORK / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    os.environ["NETRC"] = str(netrc)  # requests and so DICOMwebServer read it
    with orthanc(WORK / "orthanc") as url:
        server = DICOMwebServer(url)
        uid = pydicom.dcmread(study / "1.dcm").StudyInstanceUID
        server.store(uid, [study / f"{number}.dcm" for number in (1, 2, 3)])
        print(f"  stored study {uid}, found {server.find_studies(patient=TAGS['PatientID'])}")
        result = WORK / "result"
        said = xrecon("dicomweb", url, "--patient", TAGS["PatientID"], "--segment", "--output_dir", result)
        print("  " + said.strip())
        check_stored(server, uid, result, study)
        check_failures(server, study, case)
    said = xrecon("dicomweb", url, "--study", uid, fails=True)
    assert "no server answers there" in said, said
    print(f"  stopped server: {said.strip()}\ndicomweb-test: all passed")


def check_stored(server: DICOMwebServer, uid: str, result: Path, study: Path) -> None:
    """What the server now has in the study is what was made here, and what the files alone lead to."""
    for modality, made in {
        "CT": sorted((result / "ct").glob("*.dcm")),
        "SEG": [result / "segmentation.dcm"],
        "SR": [result / "segmentation.sr.dcm"],
    }.items():
        folder = WORK / "again" / modality
        folder.mkdir(parents=True)
        (series,) = server.series(uid, [modality])
        paths = server.fetch(uid, [series], folder)
        again = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, paths)}
        assert len(again) == len(made), (modality, len(again), len(made))
        for image in map(pydicom.dcmread, made):
            assert again[image.SOPInstanceUID] == image, f"{modality} {image.SOPInstanceUID} came back changed"
        print(f"  {modality}: {len(again)} instances came back equal")
    stored, kept = read_ct(WORK / "again" / "CT"), read_ct(result / "ct")
    assert np.array_equal(stored.hu, kept.hu)
    assert np.allclose(stored.affine, kept.affine)
    predictor = Predictor(ROOT / SHIPPED, SIZE)
    reconstruct_files(study / "1.dcm", study / "2.dcm", WORK / "by_file", predictor, output_format="dicom")
    by_file = read_ct(WORK / "by_file")
    assert np.array_equal(stored.hu, by_file.hu)
    report = json.loads((result / "ct" / "reconstruction.json").read_text())
    sources = [pydicom.dcmread(study / name).SOPInstanceUID for name in ("1.dcm", "2.dcm")]
    assert [entry["file"].rpartition("/")[2] for entry in report["inputs"]] == sources
    print(f"  CT {stored.hu.shape} read from the server is that of `xrecon reconstruct`; inputs named by address")


def check_failures(server: DICOMwebServer, study: Path, case: Path) -> None:
    """Each gives one line that says what is wrong, and stores nothing."""
    alone = WORK / "pa_alone"
    alone.mkdir()
    uid = generate_uid()
    image = np.rot90(np.eye(PIXELS))
    write_dx(alone / "pa.dcm", image, "pa", StudyInstanceUID=uid, PatientID="alone")
    server.store(uid, [alone / "pa.dcm"])
    before = len(server.client.search_for_instances())
    for what, arguments, expected in (
        ("no such study", (server.url, "--study", generate_uid()), "is not there"),
        ("no lateral", (server.url, "--study", uid), "1 PA and 0 left lateral"),
        ("no DICOMweb", (f"{server.url}-no", "--study", uid), "no DICOMweb there"),
        ("no address", ("127.0.0.1:8042", "--study", uid), "no address of a server"),
    ):
        said = xrecon("dicomweb", *arguments, fails=True).strip()
        assert expected in said, said
        assert said.count("\n") == 0, said
        print(f"  {what}: {said}")
    netrc = os.environ.pop("NETRC")
    os.environ["NETRC"] = os.devnull
    said = xrecon("dicomweb", server.url, "--study", uid, fails=True).strip()
    os.environ["NETRC"] = netrc
    assert "(401)" in said, said
    print(f"  no password: {said}")
    assert len(server.client.search_for_instances()) == before


def xrecon(*arguments: object, fails: bool = False) -> str:
    """What the command printed; on standard error where it has to fail."""
    command = [sys.executable, "-m", "xrecon_bundle", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == int(fails), done.stderr
    return done.stderr if fails else done.stdout


@contextmanager
def orthanc(folder: Path) -> Iterator[str]:
    """A server that keeps its data in ``folder``; yields the root of its DICOMweb service."""
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": port,
        "RemoteAccessAllowed": False,  # whoever is not on the loopback interface is turned away
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomServerEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = folder / "orthanc.log"
    with open(log, "w") as output:
        process = subprocess.Popen([ORTHANC, folder / "orthanc.json"], stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(f"http://127.0.0.1:{port}/system", process, log)
        yield f"http://127.0.0.1:{port}/dicom-web"
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Until the server answers; a server that ends first, or never answers, ends the test with its log."""
    login = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(address, headers={"Authorization": f"Basic {login}"})
    deadline = time.time() + STARTS_WITHIN_S
    while process.poll() is None and time.time() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                found = json.loads(answer.read())
            print(f"  {found['Name']} {found['Version']} at {address}")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    sys.exit(f"{log.read_text()[-3000:]}\nOrthanc did not start")


if __name__ == "__main__":
    main()
