"""What configs/inference.yaml shares with the command line: the report of a reconstruction."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import nn

from ..files import to_json, write_json
from ..placement.radiographs import place_pair
from .predictor import describe, estimate, gate, origin, weights_record

logger = logging.getLogger(__name__)


class ReportReconstructiond(MapTransform):
    """Report on a reconstruction as ``xrecon reconstruct`` does, in a JSON file beside it.

    The last postprocessing step. What the input gate would refuse is a warning here, so that one bad pair does not stop
    a folder. Warnings are also logged.

    Args:
        keys: volumes ``(1, S, S, S)`` in HU, as :class:`~xrecon_bundle.transforms.PlaceInPatientd` left them: their
            metadata name the biplanar file, and where ``SaveImaged`` has saved them (with ``savepath_in_metadict``).
            MONAI Label does not let it save; then there is no file.
        network: that made them.
        weights: file of its weights.
        output_key: receives the report; MONAI Label sends its ``result`` along with the volume.
    """

    def __init__(self, keys: KeysCollection, network: nn.Module, weights: str, output_key: str = "result") -> None:
        super().__init__(keys)
        self.network = network
        self.weights = weights
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the report."""
        result = dict(data)
        for key in self.key_iterator(data):
            report = self._report(data[key])
            saved = data[key].meta.get("saved_to")
            if saved is not None:
                from .pages import report_path  # not where MONAI Label runs: it has another pydicom

                write_json(report_path(Path(saved), "nifti"), report)
            result[self.output_key] = json.loads(to_json(report))
        return result

    def _report(self, volume: MetaTensor) -> dict[str, Any]:
        files = (Path(volume.meta["filename_or_obj"]),)
        placed = place_pair(files, volume.shape[-1])
        quality = gate(placed, files, refuse=False)
        weights = weights_record(self.weights if Path(self.weights).is_file() else None)
        hu, affine = volume[0].numpy(force=True), volume.affine.numpy()
        estimates = estimate(placed.image, self.network)
        report = describe(hu, affine, placed, quality, estimates, origin(files, weights, volume.shape[-1]))
        for warning in report["warnings"]:
            logger.warning("%s: %s", files[0], warning)
        return report
