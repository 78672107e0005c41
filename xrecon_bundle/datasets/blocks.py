"""Training cases of the store: radiographs, the coarse volume, and a random block of the fine one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset

from .. import frame
from ..frame import radiograph_to_unit
from ..networks.fine import UNKNOWN
from .training_store import SIZE, list_store


class StoreBlocks(Randomizable, Dataset):
    """A random case of the store, looked at in a random way, and a random block of it.

    The folder is listed anew whenever an epoch seeds it, so that a store may grow beside the training.

    Args:
        folder: the store, see :mod:`xrecon_bundle.datasets.training_store`.
        without: people who are held out.
        length: items of an epoch.
        edge: of the block, even.
        film_share: how often the radiographs are films of any hospital, placed with an error, rather than line
            integrals.

    An item has ``image`` ``(2, 224, 224)``, ``label`` ``(1, edge, edge, edge)`` in network units, ``segmentation``
    int64 of its shape without the channel, ``start`` ``(3,)`` of the block, ``coarse`` ``(1, 64, 64, 64)`` and
    ``coarse_segmentation``.

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
    ) -> None:
        from ..transforms.films import RandFilmd, RandPlaceFilmd

        self.folder, self.without, self.length, self.edge = folder, tuple(without), length, edge
        self.film_share = film_share
        self.film = RandFilmd(pixels=288)
        self.place = RandPlaceFilmd(spatial_size=SIZE, materials_pixels=288)
        self.cases = list_store(folder, without=without)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> StoreBlocks:
        """Seed everything and see what the store has now."""
        super().set_random_state(seed, state)
        self.film.set_random_state(self.R.randint(2**31))
        self.place.set_random_state(self.R.randint(2**31))
        self.cases = list_store(self.folder, without=self.without)
        return self

    def __len__(self) -> int:
        """Items of an epoch."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One item; the index does not matter."""
        case = self.cases[self.R.randint(len(self.cases))]
        ct, labels = (np.load(case / f"{name}.npy", mmap_mode="r") for name in ("ct", "labels"))
        coarse_labels = np.load(case / "coarse_labels.npy")
        start = self._draw_start(coarse_labels)
        block = tuple(slice(first, first + self.edge) for first in start)
        hu = torch.from_numpy(np.asarray(ct[block], dtype=np.float32))
        return {
            "image": self._radiographs(case),
            "label": frame.hu_to_unit(hu)[None],
            "segmentation": torch.from_numpy(np.asarray(labels[block], dtype=np.int64)),
            "start": torch.tensor(start),
            "coarse": torch.from_numpy(np.load(case / "coarse.npy").astype(np.float32))[None],
            "coarse_segmentation": torch.from_numpy(coarse_labels.astype(np.int64)),
        }

    def _draw_start(self, coarse_labels: np.ndarray) -> list[int]:
        """Anywhere, or (three of four) around a voxel of the lungs' bounding box; even."""
        last = SIZE - self.edge
        if self.R.random_sample() < 0.25:
            return [2 * int(self.R.randint(last // 2 + 1)) for _ in range(3)]
        scale = SIZE / coarse_labels.shape[0]
        start = []
        for inside in (np.flatnonzero((coarse_labels > 0).any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))):
            middle = scale * self.R.uniform(inside[0] - 2, inside[-1] + 3) - self.edge / 2
            start.append(2 * int(np.clip(middle, 0, last) // 2))
        return start

    def _radiographs(self, case: Path) -> torch.Tensor:
        if self.R.random_sample() < self.film_share:
            film = self.film({"materials": torch.from_numpy(np.load(case / "materials.npy"))})
            image = self.place(film)["image"]
        else:
            image = torch.from_numpy(np.load(case / "radiographs.npy"))
        return torch.nan_to_num(radiograph_to_unit(torch.as_tensor(image)), nan=UNKNOWN)


class StoreCases(Dataset):
    """Whole cases of the store, to validate with: ``image`` and ``label`` ``(1, 224, 224, 224)``.

    Args:
        folder: the store.
        people: of whom.
        limit: how many.
    """

    def __init__(self, folder: str | Path, people: Sequence[str], limit: int = 4) -> None:
        self.cases = list_store(folder, people=people, limit=limit)

    def __len__(self) -> int:
        """How many cases."""
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Case ``index``, its radiographs without looks."""
        case = self.cases[index]
        hu = torch.from_numpy(np.load(case / "ct.npy").astype(np.float32))
        image = radiograph_to_unit(torch.from_numpy(np.load(case / "radiographs.npy")))
        return {"image": image, "label": frame.hu_to_unit(hu)[None], "case": case.name}
