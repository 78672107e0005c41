"""The archive for the MONAI Model Zoo: the zoo's rules, and the weights as TorchScript."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
from monai.bundle import ckpt_export, verify_net_in_out

from scripts.zoo import LARGEST_MB, NAME, ROOT, build
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.cases import write_case
from xrecon_bundle.files import InputError
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.networks import build_generator
from xrecon_bundle.networks.weights import load_generator, save_weights

METADATA = json.loads((ROOT / "configs" / "metadata.json").read_text())
MODULES = {
    "pytorch-ignite": "ignite",
    "scikit-image": "skimage",
    "pillow": "PIL",
    "PyYAML": "yaml",
    "torch": "torch",
}
USED_BY_MONAI = {"yaml", "tensorboard"}  # the configs' format; TensorBoardStatsHandler


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in models/; before there are any, random ones."""
    shipped = ROOT / "models" / "model.pt"
    if shipped.exists():
        return shipped
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_weights(build_generator("compact", 64).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def archive(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"), weights)


@pytest.fixture(scope="module")
def bundle(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's folder, unzipped."""
    folder = tmp_path_factory.mktemp("unzipped")
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return folder / NAME


def test_archive_is_named_after_bundle_and_version(archive: Path, bundle: Path) -> None:
    assert archive.name == f"{NAME}_v{METADATA['version']}.zip"
    assert [path.name for path in bundle.parent.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "configs/metadata.json",
        "configs/inference.yaml",
        "configs/train.yaml",
        "configs/logging.conf",
        "docs/README.md",
        "docs/data_license.txt",
        "models/model.pt",
        "models/fine.pt",
        "xrecon_bundle/__init__.py",
        "xrecon_bundle/report/templates/report.html.j2",
    ],
)
def test_archive_has(name: str, bundle: Path) -> None:
    assert (bundle / name).stat().st_size > 0


def test_archive_has_the_whole_package_and_no_tests(bundle: Path) -> None:
    files = {path for path in (ROOT / "xrecon_bundle").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in (bundle / "xrecon_bundle").rglob("*") if path.is_file()} == {
        bundle / path.relative_to(ROOT) for path in files
    }
    assert not [path for path in bundle.rglob("*.py") if path.relative_to(bundle).parts[0] != "xrecon_bundle"]


def test_archive_has_no_caches_links_large_files_or_private_paths(archive: Path, bundle: Path) -> None:
    home = re.compile(r"/(home|root|Users|work)/\w")
    with zipfile.ZipFile(archive) as content:
        for entry in content.infolist():
            assert entry.external_attr >> 16 == 0o100644, entry.filename  # a regular file
            assert entry.file_size <= LARGEST_MB * 2**20, entry.filename
    for path in bundle.rglob("*"):
        relative = path.relative_to(bundle).as_posix()
        assert not re.search(r"(^|/)(\.|__pycache__)|\.(pyc|log|tmp)$", relative), relative
        if path.suffix in {".py", ".yaml", ".json", ".md", ".conf", ".txt"}:
            assert not home.search(path.read_text()), relative
    assert not list(bundle.glob("large_files.*"))


def test_links_between_the_documents_hold(bundle: Path) -> None:
    for document in (bundle / "docs").rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            assert target.startswith("https://") or (document.parent / target).exists(), f"{document.name}: {target}"


def test_same_files_give_the_same_archive(archive: Path, weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.pt"
    copy.write_bytes(weights.read_bytes())
    copy.chmod(0o600)
    os.utime(copy, (0, 0))
    assert build(tmp_path / "dist", copy).read_bytes() == archive.read_bytes()


def test_without_weights_nothing_is_packed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights to pack"):
        build(tmp_path / "dist", tmp_path / "model.pt")
    assert not list(tmp_path.rglob("*.zip"))


@pytest.mark.parametrize(
    "key",
    [
        *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version"),
        *("required_packages_version", "name", "task", "description", "authors", "copyright", "network_data_format"),
        *("intended_use", "references"),
    ],
)
def test_metadata_have(key: str) -> None:
    assert METADATA[key]


def test_metadata_list_exactly_the_packages_that_the_bundle_imports() -> None:
    imported = set()
    for path in (ROOT / "xrecon_bundle").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    optional = {re.match(r"[\w-]+", name)[0].replace("-", "_") for names in extras.values() for name in names}
    listed = {"monai", "torch", "numpy"} | {MODULES.get(name, name) for name in METADATA["required_packages_version"]}
    imported -= set(sys.stdlib_module_names) | optional | {"distributed", "lungmask"}
    assert imported | USED_BY_MONAI == listed


def test_weights_are_a_plain_state_dict(bundle: Path) -> None:
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert {type(value) for value in state.values()} == {torch.Tensor}
    build_generator("compact", 64).load_state_dict(state, strict=True)


def test_network_takes_and_gives_what_the_metadata_say(bundle: Path) -> None:
    verify_net_in_out(
        "network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.yaml"),
        bundle_root=str(bundle),
        device="cpu",
    )


def test_torchscript_equals_the_network(bundle: Path, tmp_path: Path) -> None:
    config = str(bundle / "configs" / "inference.yaml")
    exported = tmp_path / "model.ts"
    coarse = str(bundle / "models" / "model.pt")  # the fine network is exported by torch.export, see `xrecon export`
    ckpt_export("network_def", str(exported), config_file=config, bundle_root=str(bundle), ckpt_path=coarse)
    network = load_generator(coarse)
    image = torch.rand((1, 2, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(image)
        difference = (torch.jit.load(exported).eval()(image) - expected).abs().max()
    assert expected.std() > 0
    assert difference <= 1e-5


def test_unzipped_bundle_runs_with_its_own_package(bundle: Path, tmp_path: Path) -> None:
    chest = synthesize_thorax(0, 64)
    write_case(tmp_path / "in" / "patient", chest.ct, cube_affine(64), None)
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    command += ["--dataset_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out")]
    command += ["--run", "['$print(__import__(\"xrecon_bundle\").__path__)', '$@evaluator.run()']"]
    result = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert str(bundle / "xrecon_bundle") in result.stdout
    assert (tmp_path / "out" / "patient" / "radiographs_ct.nii.gz").exists()
