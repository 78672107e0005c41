"""The bundle's unit test for the MONAI Model Zoo: train, evaluate and infer on three synthetic chests.

It belongs at ci/unit_tests/ of the zoo's repository and runs from its root; the bundle is in models/ there:

    python ci/unit_tests/runner.py --b xray_ct_reconstruction

`make zoo-test` runs it so, without the zoo's runner, in an environment of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

import nibabel
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism

BUNDLE = Path("models") / "xray_ct_reconstruction"
CONFIGS = BUNDLE / "configs"
SIZE = 64  # of the chests, which train and evaluate take; inference makes its weights' size
SPLITS = ("train", "validation", "test")


def test_order(first: str, second: str) -> int:
    """The zoo's runner sorts by this: training, then what takes its weights."""
    steps = ("train", "evaluate", "infer")
    places = [next(place for place, step in enumerate(steps) if step in name) for name in (first, second)]
    return places[0] - places[1]


class TestXrayCTReconstruction(unittest.TestCase):
    """Every workflow of the bundle as the zoo runs it."""

    @classmethod
    def setUpClass(cls) -> None:
        """Three cases, one a split."""
        set_determinism(0)
        sys.path.insert(0, str(BUNDLE))
        from xrecon_bundle.anatomy.thorax import synthesize_thorax
        from xrecon_bundle.datasets.cases import write_case
        from xrecon_bundle.frame import cube_affine

        cls.folder = Path(tempfile.mkdtemp())
        for seed, split in enumerate(SPLITS):
            write_case(cls.folder / "data" / split, synthesize_thorax(seed, SIZE).ct, cube_affine(SIZE), None)
        cases = [{"case": split, "split": split} for split in SPLITS]
        (cls.folder / "data" / "manifest.json").write_text(json.dumps({"cases": cases}))

    @classmethod
    def tearDownClass(cls) -> None:
        """Nothing stays."""
        shutil.rmtree(cls.folder)

    def workflow(self, kind: str, configs: list[str], check: bool = True, **override: object) -> None:
        """Run a workflow; ``check``: it has every property that MONAI asks of its kind."""
        workflow = ConfigWorkflow(
            workflow_type=kind,
            config_file=[str(CONFIGS / name) for name in configs],
            logging_file=str(CONFIGS / "logging.conf"),
            meta_file=str(CONFIGS / "metadata.json"),
            bundle_root=str(BUNDLE),
            dataset_dir=str(self.folder / "data"),
            **override,
        )
        workflow.initialize()
        if check:
            assert not workflow.check_properties()
        workflow.run()
        workflow.finalize()

    def test_train(self) -> None:
        """One epoch leaves weights."""
        models = self.folder / "models"
        self.workflow(
            "train",
            ["train.yaml"],
            max_epochs=1,
            val_interval=1,
            ckpt_dir=str(models),
            output_dir=str(self.folder / "tensorboard"),
        )
        assert (models / "model.pt").stat().st_size > 10**6

    def test_evaluate(self) -> None:
        """The shipped weights are measured."""
        self.workflow("train", ["evaluate.yaml"], check=False, output_dir=str(self.folder / "eval"))
        assert list((self.folder / "eval").rglob("*.csv"))

    def test_infer(self) -> None:
        """A CT for each case."""
        output = self.folder / "ct"
        self.workflow("infer", ["inference.yaml"], output_dir=str(output))
        written = sorted(output.rglob("*_ct.nii.gz"))
        assert len(written) == len(SPLITS)
        metadata = json.loads((CONFIGS / "metadata.json").read_text())
        expected = metadata["network_data_format"]["outputs"]["pred"]["spatial_shape"]
        assert list(nibabel.load(written[0]).shape) == expected


if __name__ == "__main__":
    loader = unittest.TestLoader()
    loader.sortTestMethodsUsing = test_order
    unittest.main(testLoader=loader)
