"""Films of a CT as MONAI dictionary transforms: materials once, then another film at every call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple_rep
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from .. import frame
from ..projection.film import (
    EXTENSION_MM,
    extend_scan,
    film_matrix,
    make_film,
    random_look,
    simulate_materials,
)

# A film's longer side on the detector; a picture fills its raster whatever that is, so this is the patient's scale.
FIELD_MM = 390.0
SCALE = (0.8, 1.3)
ASPECT_SIGMA = 0.12  # of the logarithm of width over height
LATERAL_ASPECT = 0.85
SHIFT_SIGMA_MM = 18.0
TURN_SIGMA_DEGREES = 1.5


class SimulateMaterialsd(MapTransform):
    """Thickness of soft tissue and bone along the rays: :func:`simulate_materials` of the scan made longer.

    Nothing is random, so a caching dataset keeps the result; :class:`RandFilmd` makes films of it.

    Args:
        keys: the CT, ``(1, S, S, S)`` in HU in the chest frame.
        output_key: where they go, ``(2, 2, pixels, pixels)`` float16 in mm: view, material, u, v. As many as ``keys``.
        pixels: along each edge of the detector of ``DETECTOR_MM``.
        margin_mm: see :func:`extend_scan`.
        allow_missing_keys: do nothing for a key that is not there.

    Raises:
        ValueError: the CT shows no body.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        output_key: KeysCollection = "materials",
        pixels: int = 400,
        margin_mm: float = EXTENSION_MM,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = ensure_tuple_rep(output_key, len(self.keys))
        self.pixels = pixels
        self.margin_mm = margin_mm

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Add the materials of every CT."""
        result = dict(data)
        for key, output_key in self.key_iterator(data, self.output_keys):
            longer = extend_scan(np.asarray(data[key])[0], self.margin_mm)
            result[output_key] = torch.from_numpy(simulate_materials(longer, self.pixels).astype(np.float16))
        return result


class RandFilmd(Randomizable, MapTransform):
    """A pair of films as any hospital's, each with its own look, crop, scale, shift and turn.

    Each call draws anew from ``self.R`` (``set_random_state(seed)`` makes it repeatable).

    Args:
        keys: materials ``(2, 2, P, P)``, see :class:`SimulateMaterialsd`.
        output_key: where the films go, ``(2, pixels, pixels)`` float32 in [0, 1], bright is dense, borders and letters
            as they are printed. Beside it ``<output_key>_exposed``, ``(2, pixels, pixels)`` bool, where a film shows
            something, and ``<output_key>_matrix``, ``(2, 3, 3)`` float64, from a film's pixel ``(u, v, 1)`` to the
            pixel of the materials' detector.
        pixels: along the film's longer side; the rest of the square is not exposed.
        strength: of the looks, see :func:`random_look`.
        scale: range of the patient's scale on the film; at 1 its longer side spans :data:`FIELD_MM` of the detector.
        allow_missing_keys: do nothing for a key that is not there.
    """

    def __init__(
        self,
        keys: KeysCollection = "materials",
        output_key: KeysCollection = "film",
        pixels: int = 288,
        strength: float = 1.0,
        scale: tuple[float, float] = SCALE,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.output_keys = ensure_tuple_rep(output_key, len(self.keys))
        self.pixels = pixels
        self.strength = strength
        self.scale = scale

    def randomize(self, data: object = None) -> None:
        """Draw the seed of the pair."""
        self.rng = np.random.default_rng(self.R.randint(2**31))

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Add a pair of films of every CT."""
        result = dict(data)
        for key, output_key in self.key_iterator(data, self.output_keys):
            self.randomize()
            films = [self._film(np.asarray(materials), view == 1) for view, materials in enumerate(data[key])]
            grey, exposed, matrix = (torch.from_numpy(np.stack(part)) for part in zip(*films, strict=True))
            result |= {output_key: grey, f"{output_key}_exposed": exposed, f"{output_key}_matrix": matrix}
        return result

    def _film(self, materials: np.ndarray, lateral: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng, size = self.rng, self.pixels
        aspect = np.exp(rng.normal(0, ASPECT_SIGMA)) * (LATERAL_ASPECT if lateral else 1)
        shape = tuple(max(1, round(size * min(1.0, side))) for side in (aspect, 1 / aspect))
        matrix = film_matrix(
            (shape[0], shape[1]),
            FIELD_MM / size,
            materials.shape[-1],
            shift_mm=tuple(rng.normal(0, SHIFT_SIGMA_MM, 2)),
            scale=rng.uniform(*self.scale),
            degrees=rng.normal(0, TURN_SIGMA_DEGREES),
        )
        film = make_film(materials, matrix, (shape[0], shape[1]), random_look(rng, lateral, self.strength), rng)
        before = [(size - side) // 2 for side in shape]
        margins = [(first, size - side - first) for first, side in zip(before, shape, strict=True)]
        to_film = np.eye(3)
        to_film[:2, 2] = -np.array(before)
        return np.pad(film.grey, margins), np.pad(film.exposed, margins), matrix @ to_film


class RandPlaceFilmd(Randomizable, MapTransform):
    """Films brought to the chest frame's detector by the matrix that they were made with, as well as a program does it.

    Args:
        keys: films of :class:`RandFilmd`, with their ``_exposed`` and ``_matrix`` beside them.
        output_key: where the pair goes, ``(2, S, S)`` float32; what no film shows is NaN. As many as ``keys``.
        spatial_size: S.
        materials_pixels: along each edge of the materials' detector.
        shift_mm: standard deviation of the error along u, drawn for each view, and along v. Height is shared by both
            views up to a third of it.
        scale: standard deviation of the error of the scale, which both views share, as a share.
        degrees: standard deviation of the error of the turn, drawn for each view.
        allow_missing_keys: do nothing for a key that is not there.
    """

    def __init__(
        self,
        keys: KeysCollection = "film",
        output_key: KeysCollection = "image",
        spatial_size: int = 64,
        materials_pixels: int = 400,
        shift_mm: float = 0.0,
        scale: float = 0.0,
        degrees: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.output_keys = ensure_tuple_rep(output_key, len(self.keys))
        self.spatial_size = spatial_size
        self.materials_pixels = materials_pixels
        self.shift_mm = shift_mm
        self.scale = scale
        self.degrees = degrees

    def randomize(self, data: object = None) -> None:
        """Draw the error of either view's placement: ``(3, 3)`` from the network's pixel to the materials' detector."""
        size = self.spatial_size
        across, height, apart = self.R.normal(size=2), self.R.normal(), self.R.normal(size=2) / 3
        scale, turns = np.exp(self.scale * self.R.normal()), self.degrees * self.R.normal(size=2)
        self.matrices = [
            film_matrix(
                (size, size),
                frame.detector_size_mm() / size,
                self.materials_pixels,
                shift_mm=(self.shift_mm * across[view], self.shift_mm * (height + apart[view])),
                scale=scale,
                degrees=turns[view],
            )
            for view in range(2)
        ]

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Add the placed pair."""
        result = dict(data)
        for key, output_key in self.key_iterator(data, self.output_keys):
            self.randomize()
            pair = [
                self._place(film, exposed, np.linalg.solve(np.asarray(truth), placed))
                for film, exposed, truth, placed in zip(
                    data[key], data[f"{key}_exposed"], data[f"{key}_matrix"], self.matrices, strict=True
                )
            ]
            result[output_key] = torch.stack(pair)
        return result

    def _place(self, film: Tensor, exposed: Tensor, matrix: np.ndarray) -> Tensor:
        """``(S, S)``: the film at the pixels that ``matrix`` names, smoothed where it is finer, NaN beyond."""
        grid = _grid(matrix, self.spatial_size, film.shape[-1])
        known = exposed.to(film.dtype)
        images = torch.stack([film * known, known])[None]
        step = int(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
        if step > 1:
            images = interpolate(images, (film.shape[-1] // step,) * 2, mode="area")
        grey, shown = grid_sample(images, grid, align_corners=False)[0]
        return torch.where(shown > 0.99, grey / shown.clamp(min=0.5), torch.nan)


def _grid(matrix: np.ndarray, size: int, source: int) -> Tensor:
    """``(1, S, S, 2)`` for grid_sample: where each pixel lies in a square of ``source`` pixels."""
    index = torch.arange(size, dtype=torch.float32)
    rows = torch.as_tensor(matrix[1::-1].astype(np.float32))  # the last axis first
    at = rows[:, 0, None, None] * index[:, None] + rows[:, 1, None, None] * index + rows[:, 2, None, None]
    return ((2 * at + 1) / source - 1).permute(1, 2, 0)[None]
