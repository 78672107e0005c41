from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "projector.py"


def test_it_measures_us_alone(capsys):
    runpy.run_path(str(SCRIPT))["run"](size=64, seconds=0.0)
    row = re.search(r"\| ours \| ([\d.]+)% \| ([\d.]+) s \(1 x\)", capsys.readouterr().out)
    assert 0 < float(row[1]) < 0.3


def test_a_peer_that_is_not_there_is_named_with_the_way_to_get_it():
    with pytest.raises(SystemExit, match=r"(?s)no_such_peer .*pip install"):
        runpy.run_path(str(SCRIPT))["run"](peers="no_such_peer")
