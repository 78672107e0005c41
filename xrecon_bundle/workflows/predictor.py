"""The one way from radiographs to a CT: read and place, gate, predict, check, and say how it came about.

The command line, configs/inference.yaml and the MONAI Deploy application all go it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from .. import __version__, frame
from ..files import InputError, file_sha256
from ..fingerprint import code_fingerprint
from ..frame import radiograph_to_unit, reconstruction_affine, unit_to_whole_hu
from ..io.radiograph_files import VIEWS
from ..networks.fine import FineGenerator, Rendering
from ..networks.weights import load_generator
from ..placement.radiographs import PlacedPair, place_pair
from ..quality import InputQuality, check_radiographs, projection_geometry, reprojection_consistency
from ..quality.consistency import LOW_SCORE
from .estimates import estimate_labels

NOTICE = "Computed from two radiographs. Not for diagnosis."


class Reconstruction(NamedTuple):
    """A CT and how it came about.

    Attributes:
        hu: ``(S, S, S)`` int16 HU, LPI.
        affine: ``(4, 4)`` voxel index to RAS+ mm.
        files: the radiographs' files.
        radiographs: ``(2, S, S)`` PA and left lateral as they were placed, any grey scale, bright is dense.
        report: what is written as JSON beside the volume, see docs/dicom.md.
        labels: ``(S, S, S)`` uint8 of :mod:`xrecon_bundle.segmentation.labels`, by the network itself; None: it does
            not tell.
        deviation: ``(S, S, S)`` int16, standard deviation in HU; None: it does not tell.
    """

    hu: np.ndarray
    affine: np.ndarray
    files: tuple[Path, ...]
    radiographs: torch.Tensor
    report: dict[str, Any]
    labels: np.ndarray | None = None
    deviation: np.ndarray | None = None


class Prediction(NamedTuple):
    """What a generator makes of a radiograph pair.

    Attributes:
        hu: ``(S, S, S)`` int16 HU, LPI.
        labels: see :class:`Reconstruction`.
        deviation: see :class:`Reconstruction`.
        estimates: volumes of the coarse labels, see :func:`.estimates.estimate_labels`.
    """

    hu: np.ndarray
    labels: np.ndarray | None = None
    deviation: np.ndarray | None = None
    estimates: dict[str, Any] | None = None


class Predictor:
    """A generator, loaded once, that turns files into reconstructions.

    Args:
        generator: a weights file, see :func:`xrecon_bundle.networks.weights.load_generator`; or a network, on any
            device, TorchScript too, with the attributes ``spatial_size`` (edge of its volume) and ``unknown`` (its
            input where a film shows nothing).
        spatial_size: edge of the volume that a weights file was trained for, where it does not say.
        weights: the file that a network's weights come from, for the record.
        loading: options of :func:`xrecon_bundle.placement.radiographs.place_pair`. With ``accept_any_view`` the input
            gate does not refuse either.

    Raises:
        InputError: the weights cannot be used.
    """

    def __init__(
        self,
        generator: str | Path | nn.Module,
        spatial_size: int | None = None,
        weights: str | Path | None = None,
        **loading: Any,
    ) -> None:
        if not isinstance(generator, nn.Module):
            weights, generator = generator, load_generator(generator, spatial_size)
        self.generator = generator.eval()
        self.weights = weights_record(weights)
        self.loading = loading

    @property
    def spatial_size(self) -> int:
        """Edge of the volume in voxels, and of the placed radiographs in pixels."""
        return cast(int, self.generator.spatial_size)

    @property
    def tells(self) -> bool:
        """Whether it gives labels and a deviation beside the CT."""
        return isinstance(self.generator, FineGenerator)

    def origin(self, files: Sequence[Path]) -> dict[str, Any]:
        """What a result of ``files`` depends on, see :func:`origin`."""
        return origin(files, self.weights, self.spatial_size, self.loading)

    def read(self, files: Sequence[Path]) -> PlacedPair:
        """The radiographs on the chest frame's detector, as :func:`xrecon_bundle.placement.radiographs.place_pair`."""
        return place_pair(files, self.spatial_size, **self.loading)

    def __call__(
        self, files: Sequence[str | Path], tell: Callable[[str, float], Any] = lambda stage, share: None
    ) -> Reconstruction:
        """Reconstruct from a PA and a lateral file, or from one biplanar NIfTI.

        The volume stands where the radiographs' own affine says (ours carry it), else around the origin.

        Args:
            files: the radiographs.
            tell: is told each stage as it begins, and about what share of the time is over by then.

        Raises:
            InputError: a file cannot be used, or the pair is no chest; the message says what to do.
        """
        paths = (Path(files),) if isinstance(files, str | Path) else tuple(Path(path) for path in files)
        tell("placing the radiographs", 0.0)
        placed = self.read(paths)
        quality = gate(placed, paths, refuse=not self.loading.get("accept_any_view"))
        tell("reconstructing", 0.2)
        hu, labels, deviation, estimates = predict_all(placed.image, self.generator)
        tell("comparing with the radiographs", 0.6)
        affine = reconstruction_affine(placed.affine, placed.image.shape[-1], len(hu))
        report = describe(hu, affine, placed, quality, estimates, self.origin(paths))
        return Reconstruction(hu, affine, paths, placed.image, report, labels, deviation)


def gate(placed: PlacedPair, files: Sequence[Path], refuse: bool = True) -> InputQuality:
    """Judge the radiographs.

    Raises:
        InputError: they are no pair of chest radiographs, unless ``refuse`` is false.
    """
    levelled = all(placed.record.get(view, {}).get("lungs") is not None for view in VIEWS)
    quality = check_radiographs(placed.image, compare_heights=not levelled)
    if quality.refusals and refuse:
        names = " and ".join(str(path) for path in files)
        raise InputError(f"{names}: {quality.refusals[0]}, or set accept_any_view to try all the same")
    return quality


def predict(image: torch.Tensor, generator: nn.Module) -> np.ndarray:
    """CT ``(S, S, S)`` in HU, int16, LPI, of a radiograph pair ``(2, S, S)``.

    Args:
        image: any grey scale, bright is dense; NaN where a film shows nothing.
        generator: see :class:`Predictor`; in evaluation mode.
    """
    with torch.inference_mode():
        volume = generator(_network_input(image, generator))[0, 0]
    return _to_hu(volume)


def predict_all(image: torch.Tensor, generator: nn.Module) -> Prediction:
    """As :func:`predict`, with all else that the generator tells."""
    if not isinstance(generator, FineGenerator):
        return Prediction(predict(image, generator))
    with torch.inference_mode():
        rendering = generator.render(_network_input(image, generator))
        labels = rendering.labels[0].argmax(0).to(torch.uint8)
        deviation = deviation_hu(rendering, generator)[0, 0]
    estimates = _estimates(rendering.coarse_labels, generator)
    return Prediction(_to_hu(rendering.volume[0, 0]), _doubled(labels), _doubled(deviation.round().short()), estimates)


def deviation_hu(rendering: Rendering, generator: FineGenerator) -> torch.Tensor:
    """Standard deviation ``(B, 1, x/2, y/2, z/2)`` in HU, calibrated where the weights are."""
    return (0.5 * rendering.log_variance.float()).exp() * (frame.HU_SPAN * generator.deviation_factor)


def estimate(image: torch.Tensor, generator: nn.Module) -> dict[str, Any] | None:
    """The estimates of :func:`predict_all` without its volume; None where the generator has no labels.

    Arguments as :func:`predict`.
    """
    if not isinstance(generator, FineGenerator):
        return None
    with torch.inference_mode():
        logits = generator.render_coarse(_network_input(image, generator)).coarse_labels
    return _estimates(logits, generator)


def _estimates(logits: torch.Tensor, generator: FineGenerator) -> dict[str, Any]:
    return estimate_labels(logits[0].argmax(0).numpy(force=True), generator.interval.tolist())


def _network_input(image: torch.Tensor, generator: nn.Module) -> torch.Tensor:
    unit = radiograph_to_unit(torch.as_tensor(image).float())
    unit = torch.where(torch.isnan(unit), cast(float, generator.unknown), unit)
    return unit[None].to(next(generator.parameters()).device)


def _doubled(volume: torch.Tensor) -> np.ndarray:
    return volume.numpy(force=True).repeat(2, 0).repeat(2, 1).repeat(2, 2)


def _to_hu(volume: torch.Tensor) -> np.ndarray:
    return unit_to_whole_hu(volume.detach().cpu()).numpy().astype(np.int16)


def describe(
    hu: np.ndarray,
    affine: np.ndarray,
    placed: PlacedPair,
    quality: InputQuality,
    estimates: dict[str, Any] | None,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """The report of a reconstruction ``(S, S, S)``: where it stands, how well it explains its radiographs, warnings."""
    consistency = reprojection_consistency(hu, placed.image)
    warnings = [*placed.warnings, *quality.refusals, *quality.warnings]
    if consistency["score"] < LOW_SCORE:
        warnings.append(f"the volume explains its radiographs poorly (consistency {consistency['score']:.2f})")
    return {
        "notice": NOTICE,
        **origin,
        "placement": placed.record,
        "geometry": {**projection_geometry(), "affine": affine.tolist()},
        "consistency": consistency,
        "estimates": estimates,
        "input_quality": quality.measures,
        "warnings": warnings,
    }


def origin(
    files: Sequence[Path], weights: dict[str, str] | None, spatial_size: int, loading: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What a result depends on: the code, input files and weights with their SHA-256, settings."""
    settings = {name: value for name, value in sorted((loading or {}).items()) if value}
    if Path(settings.get("style", "")).is_file():
        settings["style"] = {"file": settings["style"], "sha256": file_sha256(settings["style"])}
    return {
        "version": __version__,
        "code": code_fingerprint(),
        "inputs": [{"file": str(path), "sha256": file_sha256(path)} for path in files],
        "weights": weights,
        "spatial_size": spatial_size,
        "loading": settings,
    }


def weights_record(path: str | Path | None) -> dict[str, str] | None:
    """How a report names the weights: file and SHA-256; None: of a network that comes from no file."""
    return None if path is None else {"file": str(path), "sha256": file_sha256(path)}
