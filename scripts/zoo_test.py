"""`make zoo-test`: the archive of `make zoo` in a fresh virtual environment that knows nothing of this repository.

The environment gets MONAI and the packages that metadata.json lists, no more. Inference and training then run from the
bundle's folder and from elsewhere, and the zoo's verification commands from the bundle's folder; then the unit test for
the zoo in the zoo's own layout. What is written stays in build/zoo-test.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from deployment import SIZE, compare, expected_ct, run, unpacked_bundle
from zoo import NAME, ROOT

from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.cases import write_case
from xrecon_bundle.files import write_json
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.networks.weights import SPATIAL_SIZE, load_generator

WORK = ROOT / "build" / "zoo-test"
CENTRE = (5.0, -170.0, -200.0)
SPLITS = {"first": "train", "second": "validation"}
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
SCHEMA = ("jsonschema==4.26.0",)
ONNX = ("onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.32.0")
DIFFERENCES = """
import json, sys, onnxruntime, torch
from xrecon_bundle.networks.weights import load_generator
size = int(sys.argv[1])
image = torch.rand((1, 2, size, size), generator=torch.Generator().manual_seed(0))
with torch.inference_mode():
    eager = load_generator("models/model.pt")(image)
    script = torch.jit.load("models/model.ts").eval()(image)
onnx = onnxruntime.InferenceSession("models/model.onnx").run(None, {"image": image.numpy()})[0]
outputs = {"TorchScript": script, "ONNX": torch.from_numpy(onnx)}
print(json.dumps({name: float((output - eager).abs().max()) for name, output in outputs.items()}))
"""


def main() -> None:
    """Every step in turn; the first that fails ends the test."""
    shutil.rmtree(WORK, ignore_errors=True)
    bundle = unpacked_bundle(WORK)
    dataset = write_dataset(WORK / "dataset")
    elsewhere = WORK / "elsewhere"
    elsewhere.mkdir()
    python = make_environment(bundle)
    monai = (python, "-m", "monai.bundle")

    expected = {name: expected_ct(bundle, dataset / name / "radiographs.nii.gz") for name in SPLITS}
    train = ("run", "training", "--dataset_dir", dataset, "--max_epochs", 1, "--val_interval", 1, "--config_file")
    infer = ("run", "--dataset_dir", dataset, "--config_file")
    for folder, configs, root in (
        (bundle, Path("configs"), ()),
        (elsewhere, bundle / "configs", ("--bundle_root", bundle)),
    ):
        output = WORK / "output" / folder.name
        run(*monai, *infer, configs / "inference.yaml", "--output_dir", output / "ct", *root, cwd=folder)
        for name, hu in expected.items():
            print(" ", compare(output / "ct" / name / "radiographs_ct.nii.gz", hu, cube_affine(SIZE, CENTRE)))
        trained = ("--ckpt_dir", output / "models", "--output_dir", output / "tensorboard")
        log = run(*monai, *train, configs / "train.yaml", *trained, *root, cwd=folder)
        load_generator(output / "models" / "model.pt", SPATIAL_SIZE)
        print("\n".join(line for line in log.splitlines() if " 1/1: " in line))

    run(python, *PIP, *SCHEMA, cwd=WORK)
    schema = shutil.copy(ROOT / "tests" / "metadata_schema.json", WORK / "schema.json")  # else it is downloaded
    config = ("--config_file", "configs/inference.yaml")
    run(*monai, "verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", schema, cwd=bundle)
    run(*monai, "verify_net_in_out", "network_def", "--meta_file", "configs/metadata.json", *config, cwd=bundle)
    coarse = (*config, "--ckpt_path", "models/model.pt")  # the fine network does without TorchScript
    run(*monai, "ckpt_export", "network_def", "--filepath", "models/model.ts", *coarse, cwd=bundle)
    run(python, *PIP, *ONNX, cwd=WORK)
    given = ("--ckpt_file", "models/model.pt", "--input_shape", [1, 2, SPATIAL_SIZE, SPATIAL_SIZE])
    run(*monai, "onnx_export", "network_def", "--filepath", "models/model.onnx", *given, *coarse, cwd=bundle)
    differences = json.loads(run(python, "-c", DIFFERENCES, SPATIAL_SIZE, cwd=bundle).splitlines()[-1])
    print(f"  greatest difference from the eager network in network units: {differences}")
    assert max(differences.values()) <= 1e-5
    zoo = WORK / "zoo"
    unit_test = Path("ci") / "unit_tests" / f"test_{NAME}.py"
    shutil.copytree(bundle, zoo / "models" / NAME)
    (zoo / unit_test).parent.mkdir(parents=True)
    shutil.copy(ROOT / unit_test, zoo / unit_test)
    log = run(python, unit_test, cwd=zoo)
    print("\n".join(log.splitlines()[-3:]))
    print("zoo-test: all passed")


def make_environment(bundle: Path) -> Path:
    """A virtual environment with what metadata.json lists; returns its Python."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    wanted = metadata["required_packages_version"] | {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    run(sys.executable, "-m", "venv", WORK / "venv", cwd=WORK)
    python = WORK / "venv" / "bin" / "python"
    pins = [f"{name}=={version}" for name, version in wanted.items()]
    run(python, *PIP, *pins, cwd=WORK)
    run(python, "-c", "import importlib.util as u; assert u.find_spec('xrecon_bundle') is None", cwd=WORK)
    return python


def write_dataset(folder: Path) -> Path:
    """Two synthetic chests, one to train on and one to validate with."""
    for seed, name in enumerate(SPLITS):
        write_case(folder / name, synthesize_thorax(seed, SPATIAL_SIZE).ct, cube_affine(SPATIAL_SIZE, CENTRE))
    cases = [{"case": name, "split": split} for name, split in SPLITS.items()]
    write_json(folder / "manifest.json", {"cases": cases})
    return folder


if __name__ == "__main__":
    main()
