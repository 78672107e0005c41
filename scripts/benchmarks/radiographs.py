"""CPU seconds and memory of reading and placing a pair of full-size DICOM radiographs: 5000 x 4000 pixels, 16 bits.

``python scripts/benchmark.py radiographs``. The baseline, in the same run, reads the same two files with pydicom into
float32 arrays and does nothing else. Each is measured in a process of its own, on one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

ROWS, COLUMNS = 5000, 4000
BITS = 16
SIZE = 64  # of the network's image
SPACING_MM = 0.1
COMPRESSIONS = ("uncompressed", "JPEG 2000")


def run(repeats: int = 3) -> None:
    """Print the table; of ``repeats`` the fastest, after one that fills the caches."""
    print("| files | | CPU s | ratio | peak, MB | over imports, MB | ratio |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    with TemporaryDirectory() as scratch:
        _apart(f"write({scratch!r})")
        for compression in COMPRESSIONS:
            files = _files(scratch, compression)
            seconds, memory = {}, {}
            for what in ("baseline", "ours"):
                seconds[what], peak, memory[what] = json.loads(_apart(f"measure({what!r}, {files!r}, {repeats})"))
                ratios = [f"{of[what] / of['baseline']:.2f}" for of in (seconds, memory)]
                name = "pydicom to float32" if what == "baseline" else "read and placed"
                cells = (compression, name, f"{seconds[what]:.2f}", ratios[0], f"{peak:.0f}", f"{memory[what]:.0f}")
                print(f"| {' | '.join((*cells, ratios[1]))} |", flush=True)


def measure(what: str, files: list[str], repeats: int) -> None:
    """Print CPU seconds of the fastest run, peak memory and what of it is not imports (MB), as JSON."""
    do = _baseline() if what == "baseline" else _ours()
    before = _peak_mb()
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        do(files)
        seconds.append(time.process_time() - start)
    print(json.dumps([min(seconds[1:]), _peak_mb(), _peak_mb() - before]))


def _baseline() -> Callable[[list[str]], object]:
    import numpy as np
    import pydicom
    import pydicom.pixels

    return lambda files: [pydicom.dcmread(path).pixel_array.astype(np.float32) for path in files]


def _ours() -> Callable[[list[str]], object]:
    import imagecodecs
    import pydicom.pixels

    from xrecon_bundle.placement.finder import find_chest
    from xrecon_bundle.placement.radiographs import place_pair

    assert imagecodecs
    assert pydicom.pixels
    find_chest(_views(pixels=128)[0])  # loads the finder
    return lambda files: place_pair(files, SIZE)


def _peak_mb() -> float:
    """Of this process alone (Linux); getrusage's is inherited."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _apart(call: str) -> str:
    """What a call of this module prints in a process of its own."""
    code = f"from benchmarks.radiographs import *; {call}"
    scripts = str(Path(__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=scripts, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


def write(folder: str) -> None:
    """Write the pair in every compression."""
    views = _views()
    for compression in COMPRESSIONS:
        for path, view in zip(_files(folder, compression), views, strict=True):
            _write(path, view, compression)


def _files(folder: str, compression: str) -> list[str]:
    return [f"{folder}/{compression} {name}.dcm" for name in ("pa", "lateral")]


def _views(pixels: int = 256) -> list:
    """The radiographs of a synthetic chest, ``(U, V)``, in nepers."""
    import torch

    from xrecon_bundle.anatomy.thorax import synthesize_thorax
    from xrecon_bundle.projection.radiographs import simulate_radiographs

    return list(simulate_radiographs(torch.from_numpy(synthesize_thorax(0, 64).ct), pixels).numpy())


def _write(path: str, view: object, compression: str) -> None:
    """A DX file that says its spacing, but not how it lies; with the noise of a detector."""
    import imagecodecs
    import numpy as np
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from scipy.ndimage import zoom

    grey = zoom(np.asarray(view).T, np.array([ROWS, COLUMNS]) / np.shape(view)[::-1], order=1)
    grey += np.random.default_rng(0).normal(0, 0.005 * np.ptp(grey), grey.shape)
    stored = np.rint((grey - grey.min()) / np.ptp(grey) * (2**BITS - 1)).astype(np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    dataset.Modality, dataset.PatientID, dataset.PresentationIntentType = "DX", "1", "FOR PRESENTATION"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS, BITS - 1
    dataset.ImagerPixelSpacing = [SPACING_MM, SPACING_MM]
    if compression == "JPEG 2000":
        dataset.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
        frame = imagecodecs.jpeg2k_encode(stored, codecformat="J2K", reversible=True)
        dataset.PixelData = encapsulate([frame])
    else:
        dataset.PixelData = stored.tobytes()
    dataset.save_as(path, enforce_file_format=True)
