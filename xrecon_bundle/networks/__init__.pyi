from .coordconv import CoordConv as CoordConv
from .discriminator import CoordConvPatchDiscriminator as CoordConvPatchDiscriminator
from .discriminator import radiographs_to_volume as radiographs_to_volume
from .generator import XReconGenerator as XReconGenerator
from .generator import build_generator as build_generator
