"""How far to trust a result: are the radiographs what they should be, and does the volume explain them?"""

from .consistency import projection_geometry, reprojection_consistency
from .input_gate import InputQuality, check_radiographs

__all__ = ["InputQuality", "check_radiographs", "projection_geometry", "reprojection_consistency"]
