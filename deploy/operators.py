"""The operators of the application: DICOM files to a pair, the pair to a CT, the CT to DICOM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.deploy.core import AppContext, Fragment, IOType, Operator, OperatorSpec
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping, MonaiBundleInferenceOperator

from xrecon_bundle.datasets.radiograph_study import choose_radiographs
from xrecon_bundle.files import InputError
from xrecon_bundle.placement.radiographs import load_radiograph_pair
from xrecon_bundle.quality import check_radiographs, reprojection_consistency
from xrecon_bundle.workflows.reconstruct import NOTICE, Reconstruction, write_reconstruction
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


class ReconstructionOperator(MonaiBundleInferenceOperator):
    """The bundle's preprocessing, network and postprocessing, as its inference config says.

    The base class takes only what the SDK's own operators make of one CT series, and turns every image that it sends
    into uint8, so both ends are replaced. Radiographs that are no pair of chest X-rays are refused.

    Input ``image``: paths of the PA and of the lateral file. Output ``pred``: a
    :class:`~xrecon_bundle.workflows.reconstruct.Reconstruction`.
    """

    def __init__(self, fragment: Fragment, *args, app_context: AppContext, **kwargs) -> None:
        super().__init__(
            fragment,
            *args,
            app_context=app_context,
            input_mapping=[IOMapping("image", tuple, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Reconstruction, IOType.IN_MEMORY)],
            **kwargs,
        )

    def _receive_input(self, name: str, op_input: Any, context: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        self.files = op_input.receive(name)
        self.pair = load_radiograph_pair(*self.files, self._inputs[name]["spatial_shape"][0])
        self.quality = check_radiographs(self.pair)
        if self.quality.refusals:
            raise InputError(f"{' and '.join(map(str, self.files))}: {self.quality.refusals[0]}")
        meta = {"affine": self.pair.affine, "filename_or_obj": str(self.files[0])}
        return self.pair.as_tensor().moveaxis(0, -1), meta  # the config's first step moves the views to the front

    def _send_output(self, value: Any, name: str, metadata: dict, op_output: Any, context: Any) -> None:
        hu = value[0].cpu().numpy()
        report = {
            "notice": NOTICE,
            "inputs": [str(path) for path in self.files],
            "consistency": reprojection_consistency(hu, self.pair),
            "input_quality": self.quality.measures,
            "warnings": list(self.quality.warnings),
        }
        op_output.emit(Reconstruction(hu, value.affine.numpy(), self.files, report), name)


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
        segment_file(self.folder / "ct", self.folder / "pneumothorax.dcm", output_format="dicom")
