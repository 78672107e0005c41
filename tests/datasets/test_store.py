"""The store of cases: what is reused, what is made again, and that one bad case costs no other."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from xrecon_bundle.datasets.store import Outcome, make_or_reuse, run_cases
from xrecon_bundle.files import InputError, file_sha256

KEY = {"recipe": 1, "spacing": (1.5, 2.5), "source": "a"}


def make_case(folder: Path, key: dict) -> Outcome:
    """One case of one file."""

    def make() -> None:
        folder.mkdir(exist_ok=True)
        (folder / "ct.bin").write_bytes(b"voxels")
        record = {**key, "files": {"ct.bin": file_sha256(folder / "ct.bin")}}
        (folder / "source.json").write_text(json.dumps(record))

    return make_or_reuse(folder / "source.json", key, make)


def cut_off(folder: Path) -> None:
    (folder / "ct.bin").write_bytes(b"vox")


def lost(folder: Path) -> None:
    (folder / "ct.bin").unlink()


def half_a_record(folder: Path) -> None:
    record = folder / "source.json"
    record.write_text(record.read_text()[:20])


def no_record(folder: Path) -> None:
    (folder / "source.json").write_text("[]")


def test_a_finished_case_is_reused(tmp_path):
    assert make_case(tmp_path / "case", KEY).reused is False
    again = make_case(tmp_path / "case", KEY)
    assert again.reused is True
    assert again.record["source"] == "a"


@pytest.mark.parametrize("change", [{"recipe": 2}, {"spacing": (1.5, 2.6)}, {"source": "b"}, {"weights": "new"}])
def test_whatever_the_files_depend_on_makes_the_case_again(change, tmp_path):
    make_case(tmp_path / "case", KEY)
    assert make_case(tmp_path / "case", {**KEY, **change}).reused is False


@pytest.mark.parametrize("damage", [cut_off, lost, half_a_record, no_record])
def test_a_damaged_case_is_made_again(damage, tmp_path):
    make_case(tmp_path / "case", KEY)
    damage(tmp_path / "case")
    assert make_case(tmp_path / "case", KEY).reused is False
    assert (tmp_path / "case" / "ct.bin").read_bytes() == b"voxels"


def make_or_fail(folder: Path, number: int) -> Outcome:
    if number == 1:
        raise InputError("scan.dcm: no CT; give a CT")
    if number == 2:
        raise ZeroDivisionError("a bug")
    return make_case(folder / str(number), KEY)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_case_costs_no_other_and_the_order_stays(workers, tmp_path):
    outcomes = run_cases(partial(make_or_fail, tmp_path), [0, 1, 2, 3], "test", workers)
    assert [outcome.reason for outcome in outcomes] == [
        None,
        "scan.dcm: no CT; give a CT",
        "unexpected ZeroDivisionError: a bug",
        None,
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"0", "3"}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (None, 2)])
def test_a_case_has_the_threads_asked_for(asked, given, two_threads):
    outcomes = run_cases(lambda _: Outcome({"threads": torch.get_num_threads()}), [0], "test", threads=asked)
    assert outcomes[0].record == {"threads": given}
    assert torch.get_num_threads() == 2
