"""`make label-test`: the bundle in a real MONAI Label server on this machine's loopback interface.

The server is the `monaibundle` sample app of the MONAI Label in .venv-label, with the bundle as `make zoo` packs it. It
is asked for the CT of the LIDC patient's simulated radiographs by HTTP and by MONAI Label's own client. What it answers
has to be what the package itself computes, where the patient's own CT is. Everything stays in build/label-test.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
from deployment import SHIPPED, SIZE, compare, expected_ct, run, unpacked_bundle
from zoo import NAME, ROOT

from xrecon_bundle.datasets.lidc import fetch_lidc
from xrecon_bundle.files import file_sha256
from xrecon_bundle.workflows.simulate import simulate_case

WORK = ROOT / "build" / "label-test"
PYTHON = ROOT / ".venv-label" / "bin" / "python"
SERVER = (PYTHON, ROOT / "scripts" / "label_server.py")
STARTS_WITHIN_S = 180
CLIENT = """
import json, shutil, sys
from monailabel.client import MONAILabelClient
server, model, image, params, output = sys.argv[1:]
file, answer = MONAILabelClient(server).infer(model, image, json.loads(params))
shutil.move(file, output)
print(json.dumps(answer))
"""


def main() -> None:
    """Every step in turn; the first that fails ends the test."""
    shutil.rmtree(WORK, ignore_errors=True)
    app, studies = WORK / "monaibundle", WORK / "studies"
    run(*SERVER, "apps", "--download", "--name", app.name, "--output", WORK, cwd=ROOT)
    bundle = unpacked_bundle(WORK)
    shutil.copytree(bundle, app / "model" / NAME)
    case = WORK / "case"
    simulate_case(fetch_lidc(ROOT / ".cache")[0], case, spatial_size=SIZE)
    studies.mkdir()
    shutil.copy(case / "radiographs.nii.gz", studies / "patient.nii.gz")
    hu = expected_ct(bundle, case / "radiographs.nii.gz")
    affine = nibabel.load(case / "ct.nii.gz").affine

    with server(app, studies) as address:
        info = json.loads(get(f"{address}/info/"))
        model = info["models"][NAME]
        print(f"  {info['name']}: {NAME} {model['version']}, {model['dimension']}D input, labels {model['labels']}")
        assert (model["dimension"], model["labels"]) == (2, {"ct volume": 0})
        for extension, dtype in ((".nii.gz", "int16"), (".nii", "float32")):
            params = json.dumps({"result_extension": extension, "result_dtype": dtype, "result_compress": True})
            by_http, by_client = WORK / f"http{extension}", WORK / f"client{extension}"
            url = f"{address}/infer/{NAME}?image=patient&output=image"
            started = time.time()
            by_http.write_bytes(get(url, urllib.parse.urlencode({"params": params}).encode()))
            seconds = time.time() - started
            answer = run(PYTHON, "-c", CLIENT, address, NAME, "patient", params, by_client, cwd=WORK)
            report = json.loads(answer.splitlines()[-1])
            assert report["weights"]["sha256"] == file_sha256(bundle / SHIPPED)
            print(f"  the answer's report: consistency {report['consistency']['score']:.3f}, {report['warnings']}")
            for path in (by_http, by_client):
                assert nibabel.load(path).get_data_dtype() == dtype
                print(" ", compare(path, hu, affine))
            print(f"  {seconds:.1f} s for one CT over HTTP")
    print("label-test: all passed")


@contextmanager
def server(app: Path, studies: Path) -> Iterator[str]:
    """A running server; yields its address. Its log is ``server.log``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*SERVER, "start_server", "--app", app, "--studies", studies, "--host", "127.0.0.1", "--port", port]
    command += ["--conf", "models", NAME, "--conf", "zoo_source", "ngc"]  # else it asks the internet for the model
    print("$", *command, flush=True)
    address = f"http://127.0.0.1:{port}"
    with open(WORK / "server.log", "w") as log:
        process = subprocess.Popen([str(part) for part in command], cwd=WORK, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(process, address)
            yield address
        except BaseException:
            print((WORK / "server.log").read_text()[-5000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(process: subprocess.Popen, address: str) -> None:
    deadline = time.time() + STARTS_WITHIN_S
    while time.time() < deadline and process.poll() is None:
        try:
            get(f"{address}/info/")
            return
        except urllib.error.URLError:
            time.sleep(1)
    raise RuntimeError(f"the server did not start; {WORK / 'server.log'} says why")


def get(url: str, form: bytes | None = None) -> bytes:
    """The body of the answer to GET, or to POST where there is a form."""
    with urllib.request.urlopen(url, form, timeout=120) as answer:
        return answer.read()


if __name__ == "__main__":
    main()
