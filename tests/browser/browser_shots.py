"""Where the pictures of the pages go."""

from pathlib import Path

SHOTS = Path(__file__).parents[2] / "build" / "browser-test"
