"""The analytic chest that the segmentation is tested with."""

from tests.segmentation.conftest import collapsed, healthy

__all__ = ["collapsed", "healthy"]
