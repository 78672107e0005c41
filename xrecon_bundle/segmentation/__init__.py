"""PTX-Seg: lungs and pneumothorax in a chest CT without training, and what is measured from them."""

from __future__ import annotations

from .measures import measure_pneumothorax
from .ptxseg import PTXSeg, Segmenter

__all__ = ["PTXSeg", "Segmenter", "measure_pneumothorax"]
