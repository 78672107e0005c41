"""Shared fixtures: the real CTs, downloaded once into ``.cache/`` of the repository."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from xrecon_bundle.datasets.lidc import fetch_lidc, fetch_lidc_dicom
from xrecon_bundle.datasets.open_cts import OPEN_CTS, fetch_open_ct
from xrecon_bundle.files import InputError

CACHE = Path(__file__).parents[1] / ".cache"

SIZE = 64  # voxels along an edge of the synthetic case, and of the volumes that the untrained weights are for


def pytest_addoption(parser: pytest.Parser) -> None:
    """For an environment that has everything optional: `make test-extras`."""
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails the run")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With ``--no-skips``, fail where a test was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    """Download before pytest-xdist starts its workers, so that two of them never do it at once."""
    if hasattr(config, "workerinput"):
        return
    with suppress(InputError):  # offline: the fixtures skip what needs the CT
        fetch_lidc(CACHE)
        fetch_lidc_dicom(CACHE)
        for name in OPEN_CTS:
            fetch_open_ct(name, CACHE)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic chest as `xrecon simulate` writes a CT, away from the scanner's zero."""
    from xrecon_bundle.anatomy.thorax import synthesize_thorax
    from xrecon_bundle.datasets.cases import write_case
    from xrecon_bundle.frame import cube_affine

    folder = tmp_path_factory.mktemp("case") / "chest"
    write_case(folder, synthesize_thorax(0, SIZE).ct, cube_affine(SIZE, (5.0, -170.0, -200.0)))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights."""
    import torch

    from xrecon_bundle.networks import build_generator
    from xrecon_bundle.networks.weights import save_weights

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_weights(build_generator("compact", SIZE).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def lidc() -> tuple[Path, Path]:
    """Paths of the LIDC CT and of its TotalSegmentator labels."""
    try:
        return fetch_lidc(CACHE)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def lidc_dicom() -> Path:
    """Folder with the LIDC CT as DICOM files."""
    try:
        return fetch_lidc_dicom(CACHE)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def open_ct() -> Callable[[str], Path]:
    """Path of one of the other people's CTs, by its name in ``OPEN_CTS``."""

    def fetch(name: str) -> Path:
        try:
            return fetch_open_ct(name, CACHE)
        except InputError as error:
            pytest.skip(str(error))

    return fetch
