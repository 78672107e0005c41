"""The Hugging Face repository: front matter that the Hub takes, links that hold, the bundle beside."""

from __future__ import annotations

import json
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import hugging_face
from zoo import NAME, ROOT, bundle_files

from xrecon_bundle.files import InputError


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hugging_face.build(tmp_path_factory.mktemp("dist") / "hugging_face")


@pytest.fixture(scope="module")
def card(repository: Path) -> str:
    return (repository / "README.md").read_text()


@pytest.fixture(scope="module")
def header(card: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)[1])


def test_the_front_matter_says_what_the_hub_asks_for(header: dict) -> None:
    assert header["license"] == "apache-2.0"
    assert header["library_name"] == "monai"
    assert header["pipeline_tag"] == "image-to-3d"
    assert {"monai", "medical"} <= set(header["tags"])
    assert all(re.fullmatch(r"[a-z0-9-]+", tag) for tag in header["tags"])


def test_the_figures_are_those_of_the_weights(header: dict) -> None:
    rows = json.loads((ROOT / "models" / "model.json").read_text())
    row = next(row for row in rows if (row["model"], row["cases"]) == ("network", "angiography CT"))
    (result,) = header["model-index"][0]["results"]
    shown = {metric["type"]: metric["value"] for metric in result["metrics"]}
    expected = {"psnr": row["psnr"], "ssim": row["ssim_avg"], "mae": row["mae_hu"], "dice": row["cavity_dice"]}
    assert shown == pytest.approx(expected, abs=0.0006)
    assert result["task"]["type"] == header["pipeline_tag"]


def test_the_hubs_own_reader_takes_the_card(repository: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(repository / "README.md", ignore_metadata_errors=False).data
    assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "monai", NAME)
    assert [result.metric_type for result in data.eval_results] == ["psnr", "ssim", "mae", "dice"]


def test_the_card_is_the_model_card_and_its_links_hold(repository: Path, card: str) -> None:
    own = (ROOT / "docs" / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#\s]+)", card)
    assert len(targets) == len(re.findall(r"\]\(([^)#\s]+)", own)) > 5
    for target in targets:
        assert "://" in target or (repository / target).exists(), target
    assert "## **Limitations**" in card


def test_it_is_the_bundle(repository: Path) -> None:
    files = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    assert files == {*bundle_files(), "README.md", ".gitattributes"}
    for name in ("configs/inference.yaml", "models/model.pt", "LICENSE"):
        assert (repository / name).read_bytes() == (ROOT / name).read_bytes()


def test_large_and_binary_files_go_to_lfs(repository: Path) -> None:
    patterns = [line.split()[0] for line in (repository / ".gitattributes").read_text().splitlines()]
    for path in repository.rglob("*"):
        if path.is_file() and path.stat().st_size > 10 * 2**20:  # the Hub takes no larger file into Git itself
            assert any(fnmatch(path.name, pattern) for pattern in patterns), path.name


def test_made_again_it_is_the_same_and_nothing_else_is_replaced(repository: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    hugging_face.build(repository)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="holds something else"):
        hugging_face.build(tmp_path)


def test_without_figures_there_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make weights"):
        hugging_face.front_matter(tmp_path / "model.json")
