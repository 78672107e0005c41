"""The structure of the package: docs/architecture.md, kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import house


@pytest.fixture(scope="module")
def measured() -> house.House:
    return house.measure()


def test_every_room_has_a_floor(measured):
    assert set(measured.lines) <= {room for rooms in house.FLOORS for room in rooms}


def test_imports_point_one_way(measured):
    assert measured.upward == []


def test_nothing_imports_in_a_circle(measured):
    assert measured.circles == []


def test_no_room_holds_more_than_a_sixth_of_the_code(measured):
    total = sum(measured.lines.values())
    assert {room: lines for room, lines in measured.lines.items() if lines > total / 6} == {}


def test_the_docs_name_every_room(measured):
    text = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    assert [room for room in measured.lines if f"{room}/" not in text and f"{room}.py" not in text] == []
