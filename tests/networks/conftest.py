from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def baseline() -> ModuleType:
    """The straightforward implementation of the published forward pass, kept in the benchmark."""
    path = Path(__file__).parents[2] / "scripts" / "benchmarks" / "generator.py"
    spec = importlib.util.spec_from_file_location("generator_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
