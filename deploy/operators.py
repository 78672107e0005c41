"""The operators of the application: DICOM files to a pair, the pair to a CT, the CT to DICOM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.deploy.core import AppContext, Fragment, Operator, OperatorSpec

from xrecon_bundle.datasets.radiograph_pairs import choose_radiographs
from xrecon_bundle.workflows.predictor import Predictor
from xrecon_bundle.workflows.reconstruct import write_reconstruction
from xrecon_bundle.workflows.segment import segment_file


class RadiographSelectorOperator(Operator):
    """Find the two radiographs in a folder.

    Output ``image``: the paths of the PA and of the lateral file.
    """

    def __init__(self, fragment: Fragment, *args, folder: Path, **kwargs) -> None:
        self.folder = folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """One output."""
        spec.output("image")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Send the paths."""
        op_output.emit(choose_radiographs(self.folder), "image")


class ReconstructionOperator(Operator):
    """The predictor of ``xrecon reconstruct`` with the application's model. What is no pair of chest X-rays is refused.

    Input ``image``: paths of the PA and of the lateral file. Output ``pred``: a
    :class:`~xrecon_bundle.workflows.predictor.Reconstruction`.
    """

    def __init__(self, fragment: Fragment, *args, app_context: AppContext, **kwargs) -> None:
        self.model = app_context.models.get()
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """One input, one output."""
        spec.input("image")
        spec.output("pred")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Reconstruct."""
        network = self.model.predictor  # of a TorchScript file; a state dict is none
        predictor = Predictor(self.model.path if network is None else network, weights=self.model.path)
        op_output.emit(predictor(op_input.receive("image")), "pred")


class CTWriterOperator(Operator):
    """Write the CT as a DICOM series with its report, and what PTX-Seg finds in it as DICOM SEG, SR and JSON.

    Input ``pred``: as :class:`ReconstructionOperator` sends it.
    """

    def __init__(self, fragment: Fragment, *args, folder: Path, **kwargs) -> None:
        self.folder = folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """One input."""
        spec.input("pred")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Write everything into the folder."""
        write_reconstruction(op_input.receive("pred"), self.folder / "ct", "dicom")
        segment_file(self.folder / "ct", self.folder / "pneumothorax.dcm", output_format="dicom", view=False)
