"""`make demo`: the bundle's main job on open data, with the weights that come with it, to demo/report.html.

One real chest CT and a small synthetic cohort, none of them trained on; their simulated radiographs; the real CT's two
radiographs through the command line and through inference, at 224^3; then fine-tuning and evaluation of the coarse
network at 64^3.
Everything is written to demo/.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np

from xrecon_bundle.datasets.cohort import write_synthetic_cohort
from xrecon_bundle.datasets.lidc import fetch_lidc
from xrecon_bundle.files import InputError, write_json
from xrecon_bundle.report.figures import draw_case
from xrecon_bundle.workflows.simulate import simulate_case

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo"
DATASET = DEMO / "dataset"
LIDC_CASE = "LIDC-IDRI"
REAL = DEMO / "real"  # the real CT at 1.6 mm
SIZE, FINE_SIZE = 64, 224
SEED = 0  # the weights were trained on the cohort of another seed
SYNTHETIC_CASES = 28
FRACTIONS = (16 / 28, 4 / 28, 8 / 28)  # of training, validation and test
EPOCHS = 2


def main() -> None:
    """Run every step; stop at the first that fails."""
    started = time.time()
    shutil.rmtree(DEMO, ignore_errors=True)
    step("1/6 the data: a synthetic cohort, half of it with a pneumothorax, and one real CT")
    write_synthetic_cohort(DATASET, cases=SYNTHETIC_CASES, spatial_size=SIZE, seed=SEED, fractions=FRACTIONS)
    real = add_real_ct()
    if real:
        step("2/6 the real CT's two radiographs through the command line: xrecon reconstruct")
        real_ct_by_command_line()
    else:
        step("2/6 left out: it needs the real CT")
    step("3/6 inference: python -m monai.bundle run --config_file configs/inference.yaml")
    bundle("run", "configs/inference.yaml", dataset_dir=REAL if real else DATASET, output_dir=DEMO / "inference")
    step("4/6 fine-tuning, a few steps: python -m monai.bundle run training --config_file ...")
    bundle(
        "training",
        "['configs/train.yaml','configs/fine_tune.yaml']",
        dataset_dir=DATASET,
        ckpt_dir=DEMO / "models",
        output_dir=DEMO / "tensorboard",
        max_epochs=EPOCHS,
        val_interval=1,
        seed=SEED,
    )
    step("5/6 evaluation of models/model.pt: python -m monai.bundle run --config_file configs/evaluate.yaml")
    bundle("run", "configs/evaluate.yaml", dataset_dir=DATASET, output_dir=DEMO)
    step("6/6 done")
    minutes = (time.time() - started) / 60
    print(f"{minutes:.1f} minutes. The report: {DEMO / 'report.html'}")


def add_real_ct() -> bool:
    """The LIDC CT at 1.6 mm, and among the test cases; without a network, say so and go on."""
    try:
        ct, _ = fetch_lidc(ROOT / ".cache")
    except InputError as error:
        print(f"Going on with the synthetic cohort alone: {error}")
        return False
    simulate_case(ct, REAL / LIDC_CASE, spatial_size=FINE_SIZE)
    simulate_case(ct, DATASET / LIDC_CASE, spatial_size=SIZE)
    path = DATASET / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["cases"].append({"case": LIDC_CASE, "split": "test"})
    write_json(path, manifest)
    return True


def real_ct_by_command_line() -> None:
    """`xrecon reconstruct` from the two radiographs of the real CT, then `xrecon evaluate`."""
    case, output = REAL / LIDC_CASE, DEMO / "lidc_reconstructed.nii.gz"
    xrecon("reconstruct", case / "pa.nii.gz", case / "lateral.nii.gz", "--output", output)
    xrecon("evaluate", output, case / "ct.nii.gz")
    prediction, truth = (nibabel.load(path).get_fdata() for path in (output, case / "ct.nii.gz"))
    radiographs = np.moveaxis(nibabel.load(case / "radiographs.nii.gz").get_fdata(), -1, 0)
    figure = draw_case(radiographs, prediction, truth, title="LIDC-IDRI: radiographs, the CT, its reconstruction")
    figure.savefig(DEMO / "lidc_reconstructed.png", dpi=80, facecolor="black")


def bundle(run_id: str, config: str, **overrides: object) -> None:
    """Run a config as a user would."""
    flags = [flag for name, value in overrides.items() for flag in (f"--{name}", str(value))]
    run([sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", config, *flags])


def xrecon(*arguments: object) -> None:
    """Run a command of the command line."""
    run([sys.executable, "-m", "xrecon_bundle", *map(str, arguments)])


def run(command: list[str]) -> None:
    """Run and stop everything if it fails."""
    if subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False).returncode:
        sys.exit(f"demo: this step failed: {' '.join(command)}")


def step(text: str) -> None:
    """Announce the next step."""
    print(f"\n=== {text}", flush=True)


if __name__ == "__main__":
    main()
