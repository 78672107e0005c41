"""The bundle as its users run it: `python -m monai.bundle run` of the three configs, on four synthetic chests."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out

from xrecon_bundle import __version__
from xrecon_bundle.anatomy.pneumothorax import Pneumothorax
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.cases import write_case
from xrecon_bundle.files import write_json
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.networks import build_generator
from xrecon_bundle.networks.weights import SPATIAL_SIZE, load_generator, save_weights
from xrecon_bundle.projection import ConeBeamGeometry
from xrecon_bundle.workflows.predictor import Predictor

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
SIZE = 64
CENTRE = (5.0, -170.0, -200.0)
SPLITS = {"a": "train", "b": "train", "c": "validation", "d": "test"}


def run_bundle(run_id: str, config: str, cwd: Path = ROOT, **overrides: object) -> subprocess.CompletedProcess:
    flags = [flag for name, value in overrides.items() for flag in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(CONFIGS / config), *flags]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic chests, the one of the test with a pneumothorax."""
    folder = tmp_path_factory.mktemp("dataset")
    for seed, name in enumerate(SPLITS):
        pneumothorax = Pneumothorax("left", 0.3) if name == "d" else None
        case = synthesize_thorax(seed, SIZE, pneumothorax)
        segmentation = np.where(case.labels <= 4, case.labels, 0)
        write_case(folder / name, case.ct, cube_affine(SIZE, CENTRE), segmentation)
    write_json(folder / "manifest.json", {"cases": [{"case": name, "split": split} for name, split in SPLITS.items()]})
    return folder


@pytest.fixture(scope="session")
def training(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of one epoch, started from a folder outside the repository."""
    folder = tmp_path_factory.mktemp("training")
    result = run_bundle(
        "training",
        "train.yaml",
        cwd=folder,
        bundle_root=ROOT,
        dataset_dir=dataset,
        ckpt_dir=folder / "models",
        output_dir=folder / "tensorboard",
        max_epochs=1,
        val_interval=1,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (folder / "log.txt").write_text(result.stdout)
    return folder


def test_training_leaves_weights_checkpoints_and_curves(training: Path) -> None:
    generator = load_generator(training / "models" / "model.pt", SIZE)
    assert all(torch.isfinite(value).all() for value in generator.state_dict().values())
    assert [path.name for path in (training / "models" / "checkpoints").iterdir()] == ["checkpoint_epoch=1.pt"]
    assert list((training / "tensorboard").glob("events.out.tfevents.*"))


def test_training_logs_a_line_an_epoch(training: Path) -> None:
    log = (training / "log.txt").read_text()
    for line in ("train 1/1: loss ", "validation 1/1: ssim_avg "):
        assert log.count(line) == 1, log
    assert "Engine run" not in log


def test_training_goes_on_from_its_checkpoint(training: Path, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(training / "models")
    result = run_bundle(
        "training",
        "train.yaml",
        dataset_dir=dataset,
        ckpt_dir=tmp_path / "models",
        output_dir=tmp_path / "tensorboard",
        max_epochs=2,
        val_interval=2,
        resume=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "train 2/2: " in result.stdout
    assert "train 1/2: " not in result.stdout


def test_inference_writes_ct_in_hu_where_the_patient_was(training: Path, dataset: Path, tmp_path: Path) -> None:
    result = run_bundle(
        "run",
        "inference.yaml",
        cwd=tmp_path,
        bundle_root=ROOT,
        dataset_dir=dataset,
        ckpt_path=training / "models" / "model.pt",
        output_dir=tmp_path / "out",
    )
    assert result.returncode == 0, result.stderr[-3000:]
    written = sorted((tmp_path / "out").rglob("*.nii.gz"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        f"{name}/radiographs_ct.nii.gz" for name in SPLITS
    ]
    image = nibabel.load(written[0])
    assert image.get_data_dtype() == np.int16
    assert image.shape == (SIZE,) * 3
    assert np.allclose(image.affine, nibabel.load(dataset / "a" / "ct.nii.gz").affine, atol=1e-4)
    hu = image.get_fdata()
    assert hu.min() >= -1024
    assert hu.max() <= 1476
    assert np.ptp(hu) > 0
    # The volume and the report are those of the command line's predictor.
    for path in written:
        expected = Predictor(training / "models" / "model.pt")([dataset / path.parent.name / "radiographs.nii.gz"])
        assert np.abs(nibabel.load(path).get_fdata() - expected.hu).max() <= 1
        report = json.loads(path.with_name("radiographs_ct.json").read_text())
        assert report.keys() == expected.report.keys()
        for name in ("version", "code", "inputs", "weights", "spatial_size", "loading", "placement", "input_quality"):
            assert report[name] == expected.report[name], name
        assert report["consistency"]["score"] == pytest.approx(expected.report["consistency"]["score"], abs=1e-3)
        assert np.allclose(report["geometry"]["affine"], image.affine, atol=1e-4)


def test_evaluation_reports_every_test_case(training: Path, dataset: Path, tmp_path: Path) -> None:
    result = run_bundle(
        "run",
        "evaluate.yaml",
        dataset_dir=dataset,
        ckpt_path=training / "models" / "model.pt",
        output_dir=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["case"] for row in rows] == ["d"]
    assert 0.2 < float(rows[0]["true_occupancy"]) < 0.4  # ground truth of the dataset
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary["cases"] == 1
    assert summary["mean"]["psnr"] == pytest.approx(float(rows[0]["psnr"]))
    report = (tmp_path / "report.html").read_text()
    assert f"{float(rows[0]['psnr']):.2f}" in report
    assert 'href="pages/d.html"' in report
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["d.html"]


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("train.yaml", {"dataset_dir": "/no/such/folder"}, "no such dataset folder"),
        ("inference.yaml", {"dataset_dir": "/no/such/folder"}, "no radiograph pair"),
    ],
)
def test_missing_data_is_named(config: str, overrides: dict[str, str], message: str, tmp_path: Path) -> None:
    outputs = {"output_dir": tmp_path / "out"} | ({"ckpt_dir": tmp_path / "models"} if config == "train.yaml" else {})
    result = run_bundle("run", config, **overrides, **outputs)
    assert result.returncode != 0
    assert message in result.stderr
    assert not list(tmp_path.rglob("*.pt"))


def test_weights_of_any_size_are_evaluated_at_theirs(dataset: Path, tmp_path: Path) -> None:
    save_weights(build_generator("compact", 128).state_dict(), tmp_path / "model.pt")
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "evaluate.yaml"))
    parser["ckpt_path"] = str(tmp_path / "model.pt")
    assert parser.get_parsed_content("spatial_size") == 128
    assert parser.get_parsed_content("network_def").spatial_size == 128


def test_fine_tuning_may_recompute_activations() -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("train.yaml", "fine_tune.yaml")])
    parser["bundle_root"], parser["activation_checkpointing"] = str(ROOT), "true"
    assert parser.get_parsed_content("network_def").activation_checkpointing is True


@pytest.mark.parametrize(
    ("config", "workflow_type"), [("train.yaml", "train"), ("inference.yaml", "infer"), ("evaluate.yaml", "infer")]
)
def test_configs_have_every_property_that_monai_names(config: str, workflow_type: str, dataset: Path) -> None:
    workflow = ConfigWorkflow(
        str(CONFIGS / config),
        meta_file=str(CONFIGS / "metadata.json"),
        workflow_type=workflow_type,
        bundle_root=str(ROOT),
        dataset_dir=str(dataset),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def recipe(*overlays: str) -> dict[str, object]:
    """What the ablation changes, as configs/train.yaml with these overlays wires it."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("train.yaml", *overlays)])
    get = parser.get_parsed_content
    generator, first_layer = get("network_def"), get("discriminator_def")[0]
    return {
        "weights": tuple(get(f"{name}_weight") for name in ("volume", "projection", "adversarial")),
        "fusion": generator.fusion,
        "views": generator.views,
        "discriminator_channels": next(first_layer.parameters()).shape[1],
    }


@pytest.mark.parametrize(
    ("overlay", "change"),
    [
        ("recon_only", {"weights": (10.0, 0.0, 0.0)}),
        ("recon_projection", {"weights": (10.0, 0.1, 0.0)}),
        ("full", {}),
        ("no_mfusion", {"fusion": False}),
        ("no_coordconv", {"discriminator_channels": 3}),  # CoordConv adds three
        ("unconditional", {"discriminator_channels": 4}),
        ("single_view", {"views": 1, "discriminator_channels": 5}),
    ],
)
def test_an_ablation_changes_one_thing(overlay: str, change: dict[str, object]) -> None:
    full = {"weights": (10.0, 0.1, 1.0), "fusion": True, "views": 2, "discriminator_channels": 6}
    assert recipe(f"ablation/{overlay}.yaml") == full | change


def test_every_ablation_overlay_is_run_and_tested() -> None:
    (tested,) = (mark.args[1] for mark in test_an_ablation_changes_one_thing.pytestmark)
    assert {name for name, _ in tested} == {path.stem for path in (CONFIGS / "ablation").glob("*.yaml")}


def test_the_published_projection_loss_is_an_overlay() -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("train.yaml", "published_loss.yaml")])
    loss = parser.get_parsed_content("reconstruction_loss").projection_loss
    assert loss.projector.geometry == ConeBeamGeometry.prost_published()


TRAIN_KEYS = (
    "bundle_root device dataset_dir output_dir network_def network inferer preprocessing postprocessing "
    "train#trainer#max_epochs train#dataset#data train#handlers validate#evaluator validate#handlers "
    "validate#dataset#data val_interval key_metric"
)


@pytest.mark.parametrize("key", TRAIN_KEYS.split())
def test_train_config_has_the_zoos_keys(key: str) -> None:
    config = yaml.safe_load((CONFIGS / "train.yaml").read_text())
    for part in key.split("#"):
        assert part in config
        config = config[part]


def test_network_takes_and_gives_what_the_metadata_say() -> None:
    """Of inference: the other configs are of the coarse network, whose size is one of their keys."""
    verify_net_in_out("network_def", str(CONFIGS / "metadata.json"), str(CONFIGS / "inference.yaml"), device="cpu")
    output = json.loads((CONFIGS / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    assert output["spatial_shape"] == [load_generator(CONFIGS.parent / "models" / "fine.pt").spatial_size] * 3


def test_metadata_follow_the_bundle_specification(tmp_path: Path) -> None:
    # The schema that metadata.json names is a download; this one is our reading of the specification.
    schema = tmp_path / "schema.json"
    schema.write_text((Path(__file__).parent / "metadata_schema.json").read_text())
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(schema))


def test_versions_and_sizes_agree_everywhere() -> None:
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    assert metadata["version"] == __version__
    assert metadata["version"] in metadata["changelog"]
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().split() if "==" in line)
    named = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    for package, version in (named | metadata["required_packages_version"]).items():
        assert {_pypi(name): pin for name, pin in pins.items()}[_pypi(package)] == version, package
    train, evaluate = (yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in ("train", "evaluate"))
    assert train["spatial_size"] == SPATIAL_SIZE
    assert train["network_preset"] == evaluate["network_preset"] == "compact"


def _pypi(name: str) -> str:
    """A package's name as PyPI compares it (PEP 503)."""
    return name.lower().replace("_", "-")
