"""What stands in for a network where a test needs a chest to come out."""

from __future__ import annotations

import numpy as np
import torch

from xrecon_bundle.anatomy.pneumothorax import Pneumothorax
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.frame import hu_to_unit


class KnownChest(torch.nn.Module):
    """The same thorax with a pneumothorax on the right, of ``spatial_size``, whatever the X-rays show."""

    unknown = 0.0

    def __init__(self, spatial_size: int) -> None:
        super().__init__()
        self.spatial_size = spatial_size
        hu = synthesize_thorax(1, spatial_size, Pneumothorax("right", 0.4)).ct.astype(np.float32)
        self.volume = torch.nn.Parameter(hu_to_unit(torch.from_numpy(hu))[None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.volume
