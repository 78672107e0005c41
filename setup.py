"""A wheel carries the weights, which lie beside the package in the bundle. The rest is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WEIGHTS = Path("models/fine.pt")


class BuildWithWeights(build_py):
    """Copies the weights into the package; an editable installation finds them where they are."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "xrecon_bundle", WEIGHTS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(WEIGHTS, target)


setup(cmdclass={"build_py": BuildWithWeights})
