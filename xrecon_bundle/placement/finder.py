"""Where is the chest in a picture, which view is it, and how does it lie? A small network says it.

It is made by ``scripts/placement_weights.py`` from simulated films; docs/results/placement.md says how well it does.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.ndimage import affine_transform
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from .resample import sample_smoothly
from .turning import WAYS, lay, together, upright_matrix

if TYPE_CHECKING:
    from jaxtyping import Float

WEIGHTS = Path(__file__).with_name("finder.pt")
PIXELS = 96
NO_CHEST = 2 * WAYS  # the class after those of the two views
MARGINS = (0.45, 0.3)  # of the box found, around it in the closer looks
LOCAL = 15  # pixels of the neighbourhood in which contrast is made even


class Found(NamedTuple):
    """What the network sees in a picture.

    Attributes:
        ways: ``(2, 8)`` probability that it is a PA or a lateral that lies in one of the ways of :mod:`.turning`; what
            is missing to 1 is no chest.
        box: ``(2, 2)`` first and last of the lungs along u and v in pixels of the picture as given; it may reach
            beyond the picture.
        spread: ``(2, 2)`` of the box's edges, pixels: the mean error to expect.
    """

    ways: np.ndarray
    box: np.ndarray
    spread: np.ndarray


class ChestFinder(nn.Module):
    """Convolutions and two heads: what a picture is, and where the lungs are in it."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 3 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        cells = (PIXELS // 2**4) ** 2
        self.squeeze = nn.Sequential(nn.Conv2d(widths[-1], 32, 1), nn.ReLU(), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(32 * cells, 128), nn.ReLU(), nn.Dropout(0.1))
        self.kind = nn.Linear(128, 2 * WAYS + 1)
        self.place = nn.Linear(128, 8)

    def forward(
        self, pictures: Float[Tensor, "b 3 96 96"]
    ) -> tuple[Float[Tensor, "b 17"], Float[Tensor, "b 4"], Float[Tensor, "b 4"]]:
        """Logits of views and ways; left, right, top and bottom of the lungs, -1 to 1 in the picture; log spreads."""
        hidden = self.hidden(self.squeeze(self.features(pictures)))
        place = self.place(hidden)
        return self.kind(hidden), place[:, :4], place[:, 4:].clamp(-6, 2)


def network_input(grey: Float[Tensor, "b 96 96"], known: Float[Tensor, "b 96 96"]) -> Float[Tensor, "b 3 96 96"]:
    """What the network is shown of pictures, whatever their tone curve.

    Args:
        grey: any scale, bright is dense.
        known: 1 where the picture shows something, 0 around it.

    Returns:
        ranks of the grey levels, -1 to 1; grey levels with their local mean and spread taken out; ``known``.
    """
    inside = known > 0.5
    filled = torch.where(inside, grey, torch.inf).flatten(1)
    count = inside.flatten(1).sum(1, keepdim=True).clamp(min=2)
    ranks = filled.argsort(1).argsort(1).to(grey.dtype) / (count - 1) * 2 - 1
    ranks = torch.where(inside, ranks.view_as(grey), 0.0)
    share = local_mean(inside.to(grey.dtype), LOCAL).clamp(min=1e-3)
    mean = local_mean(ranks, LOCAL) / share
    deviation = torch.where(inside, ranks - mean, 0.0)
    spread = (local_mean(deviation**2, LOCAL) / share + 0.01).sqrt()
    return torch.stack([ranks, deviation / spread / 2, inside.to(grey.dtype)], 1)


def find_chest(grey: np.ndarray, exposed: np.ndarray | None = None) -> Found:
    """Look at a picture ``(U, V)``, bright is dense, in all eight ways, and combine the answers.

    Args:
        grey: the picture.
        exposed: ``(U, V)`` bool, False where it shows nothing.
    """
    return _look(*_window(grey, exposed, exposed_window(grey.shape, exposed)))


def exposed_window(shape: tuple[int, int], exposed: np.ndarray | None) -> np.ndarray:
    """``(2, 2)`` first and last pixel along u and v that a picture of ``shape`` shows."""
    if exposed is None:
        return np.array([[0.0, shape[0] - 1.0], [0.0, shape[1] - 1.0]])
    shown = [np.flatnonzero(exposed.any(axis=1 - axis)) for axis in range(2)]
    return np.array([[places[0], places[-1]] for places in shown], dtype=float)


def look_closer(grey: np.ndarray, exposed: np.ndarray | None, found: Found) -> Found:
    """Find the box anew in windows around the one that was found."""
    for margin in MARGINS:
        size = found.box[:, 1] - found.box[:, 0]
        window = found.box + margin * size[:, None] * np.array([-1, 1])
        again = _look(*_window(grey, exposed, window))
        found = found._replace(box=again.box, spread=again.spread)
    return found


def turn_found(found: Found, way: int, shape: tuple[int, int]) -> Found:
    """What was found in a picture of ``shape`` that lies in that way, in pixels of it set upright; ``ways`` stay."""
    matrix = upright_matrix(way, shape)
    box = matrix[:2, :2] @ found.box + matrix[:2, 2:]
    spread = np.abs(matrix[:2, :2]) @ found.spread
    reverse = box[:, 0] > box[:, 1]
    box[reverse], spread[reverse] = box[reverse, ::-1], spread[reverse, ::-1]
    return found._replace(box=box, spread=spread)


def _look(picture: np.ndarray, known: np.ndarray, to_grey: np.ndarray) -> Found:
    laid = np.stack([[lay(image, way) for image in (picture, known)] for way in range(WAYS)])
    pictures = torch.from_numpy(np.ascontiguousarray(laid, dtype=np.float32))
    with torch.inference_mode():
        logits, edges, spreads = _finder()(network_input(pictures[:, 0], pictures[:, 1]))
    shares = logits.softmax(1)[:, :NO_CHEST].view(WAYS, 2, WAYS).numpy()
    ways = np.mean([shares[laid_in][:, [together(way, laid_in) for way in range(WAYS)]] for laid_in in range(WAYS)], 0)
    boxes, widths = [], []
    for way, (place, log_spread) in enumerate(zip(edges, spreads, strict=True)):
        box = ((place.numpy().reshape(2, 2) + 1) * PIXELS - 1) / 2
        there = Found(ways, box, log_spread.exp().numpy().reshape(2, 2) * PIXELS / 2)
        back = turn_found(there, way, (PIXELS, PIXELS))
        boxes.append(back.box)
        widths.append(back.spread)
    spread = np.sqrt(np.mean(np.square(widths), 0) + np.var(boxes, 0))
    return Found(ways, np.median(boxes, 0) * to_grey[:, :1] + to_grey[:, 1:], spread * to_grey[:, :1])


def _window(
    grey: np.ndarray, exposed: np.ndarray | None, window: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A window ``(2, 2)`` of a picture in the middle of a square, what is known of it, and the way back.

    The last is ``(2, 2)``: a pixel of the square times the first column plus the second is one of the picture.
    """
    size = window[:, 1] - window[:, 0] + 1
    step = float(size.max()) / PIXELS
    first = window.mean(axis=1) - step * (PIXELS - 1) / 2
    shape = (PIXELS, PIXELS)
    square = sample_smoothly(np.asarray(grey, dtype=np.float32), first, np.full(2, step), shape)
    mask = np.ones(grey.shape, np.float32) if exposed is None else exposed.astype(np.float32)
    known = affine_transform(mask, np.full(2, step), first, shape, order=1, mode="constant") > 0.5
    position = first[:, None] + step * np.arange(PIXELS)
    inside = (position > window[:, :1] - 1) & (position < window[:, 1:] + 1)
    known &= inside[0][:, None] & inside[1]
    return square, known.astype(np.float32), np.stack([np.full(2, step), first], axis=1)


def local_mean(pictures: Tensor, width: int) -> Tensor:
    """Means of ``(B, P, P)`` over squares of an odd ``width``, zeros beyond the edge; one axis after the other."""
    rows = avg_pool2d(pictures[:, None], (width, 1), 1, (width // 2, 0))
    return avg_pool2d(rows, (1, width), 1, (0, width // 2))[:, 0]


@cache
def _finder() -> ChestFinder:
    finder = ChestFinder()
    state = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    finder.load_state_dict(state)  # stored in half precision
    return finder.eval()
