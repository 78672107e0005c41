"""Training cases of the store: radiographs, the coarse volume, and a random block of the fine one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset

from .. import frame
from ..anatomy.bending import bend_chest
from ..frame import radiograph_to_unit
from ..networks.fine import DEPTHS
from ..networks.thickness import UNKNOWN
from ..projection.film import extend_scan, whole_sections
from ..segmentation.labels import SIDES
from .training_store import PIXELS, SIZE, Chest, list_store

if TYPE_CHECKING:
    from ..transforms.films import RandFilmd, RandPlaceFilmd

# Smaller than those of real films (docs/results/placement.md): what moves both views alike is another patient, not an
# error, and the volume shall stand where the films are.
ERROR_MM, ERROR_SCALE, ERROR_DEGREES = 6.0, 0.03, 1.5

OTHER_SIDE = np.arange(256, dtype=np.uint8)  # of a label, in a mirrored chest
OTHER_SIDE[[*SIDES["right"], *SIDES["left"]]] = [*SIDES["left"], *SIDES["right"]]


def film_and_placement(spatial_size: int, error: float = 1.0) -> tuple[RandFilmd, RandPlaceFilmd]:
    """The transforms that make films of a case's materials, and place them on ``spatial_size`` pixels.

    Args:
        spatial_size: along each edge of the placed pair.
        error: of the placement, in multiples of the usual one.
    """
    from ..transforms.films import RandFilmd, RandPlaceFilmd

    errors = (error * ERROR_MM, error * ERROR_SCALE, error * ERROR_DEGREES)
    return RandFilmd(pixels=PIXELS), RandPlaceFilmd("film", "image", spatial_size, PIXELS, *errors)


class StoreBlocks(Randomizable, Dataset):
    """A random case of the store, looked at in a random way, and a random block of it.

    What a film shows beyond a scan's ends the volume shall show too: its truth goes on there as soft tissue
    (:func:`~xrecon_bundle.projection.film.extend_scan`), and its blocks lie within the scan.

    The folder is listed anew whenever an epoch seeds it, so that a store may grow beside the training.

    Args:
        folder: the store, see :mod:`xrecon_bundle.datasets.training_store`.
        without: people who are held out.
        length: items of an epoch.
        edge: of the block, a multiple of 4; 0: no block, and the cases need not be of 1.6 mm.
        film_share: how often the radiographs are films of any hospital, placed with an error, rather than line
            integrals.
        blocks_per_picture: items in a row, in one loader process, that are blocks of one case with the same
            radiographs: what does not depend on the block then needs no second look. Without blocks every item is
            another case.
        bent_mm: every case is bent by so much at most (:func:`~xrecon_bundle.anatomy.bending.bend_chest`); 0: none is.
            Then its radiographs are simulated anew: in 0.2 s at 3.2 mm, in 4 at 1.6.
        mirror_share: how often a case is mirrored, right for left: twice as many chests, half of them with the heart on
            the right, which the PA shows. The lateral's rays then come from the other side of the patient, which
            changes its magnification by a few hundredths.

    An item has ``image`` ``(2, 224, 224)``, ``label`` ``(1, edge, edge, edge)`` in network units, ``segmentation``
    int64 of its shape without the channel, ``start`` ``(3,)`` of the block (these three only with a block), ``coarse``
    ``(1, 64, 64, 64)``, ``coarse_segmentation``, and ``case``, its name.

    Raises:
        InputError: no case is finished.
    """

    def __init__(
        self,
        folder: str | Path,
        without: Sequence[str] = (),
        length: int = 100,
        edge: int = 64,
        film_share: float = 0.5,
        blocks_per_picture: int = 1,
        mirror_share: float = 0.0,
        bent_mm: float = 0.0,
    ) -> None:
        self.folder, self.without, self.length, self.edge = folder, tuple(without), length, edge
        self.film_share = film_share
        self.blocks_per_picture = blocks_per_picture if edge else 1
        self.mirror_share, self.bent_mm = mirror_share, bent_mm
        self.film, self.place = film_and_placement(SIZE)
        self._list()

    def _list(self) -> None:
        self.cases = list_store(self.folder, without=self.without)
        self.drawn = 0

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> StoreBlocks:
        """Seed everything and see what the store has now."""
        super().set_random_state(seed, state)
        self.film.set_random_state(self.R.randint(2**31))
        self.place.set_random_state(self.R.randint(2**31))
        self._list()
        return self

    def __len__(self) -> int:
        """Items of an epoch."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One item; the index does not matter."""
        if self.drawn % self.blocks_per_picture == 0:
            drawn = self.cases[self.R.randint(len(self.cases))]
            self.name, self.case = drawn.name, self._bent(drawn)
            self.film_drawn = self.R.random_sample() < self.film_share
            self.image = draw_film(self.case, self.film, self.place) if self.film_drawn else line_integrals(self.case)
            self.mirrored = self.R.random_sample() < self.mirror_share
            if self.mirrored:
                self.image = torch.stack([self.image[0].flip(0), self.image[1]])
        self.drawn += 1
        coarse = coarse_volume(self.case, self.film_drawn)
        coarse_labels = _array(self.case, "coarse_labels")
        if self.mirrored:
            coarse, coarse_labels = coarse.flip(0), OTHER_SIDE[coarse_labels[::-1]]
        item = {
            "case": self.name,
            "image": self.image,
            "coarse": coarse[None],
            "coarse_segmentation": torch.from_numpy(coarse_labels.astype(np.int64)),
        }
        return item | self._block(self.case, coarse_labels, self.film_drawn) if self.edge else item

    def _bent(self, case: Path) -> Path | Chest:
        if not self.bent_mm:
            return case
        ct, labels = (np.load(case / f"{name}.npy") for name in ("ct", "labels"))
        rng = np.random.default_rng(self.R.randint(2**31))
        return Chest(*bend_chest(ct, labels, rng, frame.voxel_size(len(ct)), self.bent_mm))

    def _block(self, case: Path | Chest, coarse_labels: np.ndarray, film: bool) -> dict[str, Any]:
        ct, labels = (_array(case, name, mmap_mode="r") for name in ("ct", "labels"))
        start = self._draw_start(coarse_labels)
        if film:
            first, last = whole_sections(np.asarray(ct[::4, ::4, ::4]))  # quick, and multiples of 4
            start[2] = max(0, min(max(start[2], DEPTHS * first), DEPTHS * last - self.edge))
        block = tuple(slice(first, first + self.edge) for first in start)
        if self.mirrored:
            ct, labels = ct[::-1], labels[::-1]
        hu = torch.from_numpy(ct[block].astype(np.float32))
        seen = OTHER_SIDE[labels[block]] if self.mirrored else labels[block]
        return {
            "label": frame.hu_to_unit(hu)[None],
            "segmentation": torch.from_numpy(seen.astype(np.int64)),
            "start": torch.tensor(start),
        }

    def _draw_start(self, coarse_labels: np.ndarray) -> list[int]:
        """Anywhere, or (three of four) around a voxel of the lungs' bounding box; multiples of 4."""
        last = SIZE - self.edge
        if self.R.random_sample() < 0.25:
            return [DEPTHS * int(self.R.randint(last // DEPTHS + 1)) for _ in range(3)]
        scale = SIZE / coarse_labels.shape[0]
        start = []
        for inside in (np.flatnonzero((coarse_labels > 0).any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))):
            middle = scale * self.R.uniform(inside[0] - 2, inside[-1] + 3) - self.edge / 2
            start.append(DEPTHS * int(np.clip(middle, 0, last) // DEPTHS))
        return start


class StoreCases(Dataset):
    """Whole cases of the store, to validate with; every second one with films, always the same ones.

    Args:
        folder: the store.
        people: of whom.
        limit: how many.
        coarse: the coarse volume, not the fine one.

    An item has ``image`` ``(2, 224, 224)``, ``label`` ``(1, 224, 224, 224)`` or ``(1, 64, 64, 64)``, and ``case``.
    """

    def __init__(self, folder: str | Path, people: Sequence[str], limit: int = 4, coarse: bool = False) -> None:
        self.cases = list_store(folder, people=people, limit=limit)
        self.coarse = coarse
        self.film, self.place = film_and_placement(SIZE, error=0)

    def __len__(self) -> int:
        """How many cases."""
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Case ``index``."""
        case = self.cases[index]
        if index % 2:
            self.film.set_random_state(index)
            image = draw_film(case, self.film, self.place)
        else:
            image = line_integrals(case)
        if self.coarse:
            label = coarse_volume(case, film=index % 2 == 1)
        else:
            ct = np.load(case / "ct.npy").astype(np.float32)
            label = frame.hu_to_unit(torch.from_numpy(extend_scan(ct, 0.0) if index % 2 else ct))
        return {"image": image, "label": label[None], "case": case.name}


def line_integrals(case: Path | Chest) -> torch.Tensor:
    """The network's input ``(2, 224, 224)`` as the projector makes it."""
    return radiograph_to_unit(torch.from_numpy(_array(case, "radiographs")))


def coarse_volume(case: Path | Chest, film: bool) -> torch.Tensor:
    """The volume ``(64, 64, 64)`` in network units that goes with a film or with line integrals."""
    coarse = torch.from_numpy(_array(case, "coarse").astype(np.float32))
    if not film:
        return coarse
    return frame.hu_to_unit(torch.from_numpy(extend_scan(frame.unit_to_hu(coarse).numpy(), 0.0)))


def draw_film(case: Path | Chest, film: RandFilmd, place: RandPlaceFilmd) -> torch.Tensor:
    """The network's input ``(2, 224, 224)`` from films of a case, :data:`UNKNOWN` where they show nothing."""
    films = film({"materials": torch.from_numpy(_array(case, "materials").astype(np.float32))})
    return torch.nan_to_num(radiograph_to_unit(torch.as_tensor(place(films)["image"])), nan=UNKNOWN)


def _array(case: Path | Chest, name: str, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    return case.array(name) if isinstance(case, Chest) else np.load(case / f"{name}.npy", mmap_mode)
