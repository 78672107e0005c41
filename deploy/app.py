"""MONAI Deploy application: a DICOM study with PA and lateral chest radiograph in, CT and pneumothorax in DICOM out.

    PYTHONPATH=BUNDLE python deploy/app.py -i STUDY -o OUTPUT -m BUNDLE/models/fine.pt

The model is a state dict, or what `python -m monai.bundle ckpt_export` makes of a coarse one. OUTPUT receives the
series ``ct/0001.dcm`` ... with ``ct/reconstruction.json``, and ``pneumothorax.dcm`` (DICOM SEG), ``.sr.dcm``
(measurements) and ``.json``.
"""

from __future__ import annotations

from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application
from operators import CTWriterOperator, RadiographSelectorOperator, ReconstructionOperator


class ChestCTFromRadiographsApp(Application):
    """Select the two radiographs, reconstruct, write."""

    def compose(self) -> None:
        """Chain the three operators."""
        context = Application.init_app_context(self.argv)
        selector = RadiographSelectorOperator(
            self, CountCondition(self, 1), folder=Path(context.input_path), name="selector"
        )
        reconstruction = ReconstructionOperator(self, app_context=context, name="reconstruction")
        writer = CTWriterOperator(self, folder=Path(context.output_path), name="writer")
        self.add_flow(selector, reconstruction, {("image", "image")})
        self.add_flow(reconstruction, writer, {("pred", "pred")})


if __name__ == "__main__":
    ChestCTFromRadiographsApp().run()
