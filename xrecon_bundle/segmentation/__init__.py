"""PTX-Seg: lungs and pneumothorax in a chest CT without training, and what is measured from them.

Nothing is imported before it is asked for, so that ``segmentation.labels`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .measures import measure_pneumothorax
    from .pockets import Pocket, Verdict, judge, measure_pocket
    from .ptxseg import PTXSeg, Segmenter

__all__ = ["PTXSeg", "Pocket", "Segmenter", "Verdict", "judge", "measure_pneumothorax", "measure_pocket"]
_HOMES = {"measure_pneumothorax": "measures", "PTXSeg": "ptxseg", "Segmenter": "ptxseg"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES.get(name, 'pockets')}", __name__), name)
