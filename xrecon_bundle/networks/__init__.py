"""Networks: the generator, published and compact, and the conditional patch discriminator."""

from .coordconv import CoordConv
from .discriminator import CoordConvPatchDiscriminator, radiographs_to_volume
from .generator import XReconGenerator, build_generator

__all__ = ["CoordConv", "CoordConvPatchDiscriminator", "XReconGenerator", "build_generator", "radiographs_to_volume"]
