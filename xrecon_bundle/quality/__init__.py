"""How far to trust a result: are the radiographs what they should be, and does the volume explain them?"""

from .consistency import reprojection_consistency

__all__ = ["reprojection_consistency"]
