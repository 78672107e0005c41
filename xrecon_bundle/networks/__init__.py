"""Networks: the generator, published and compact, and the conditional patch discriminator."""

import lazy_loader

# By need: the discriminator is built of MONAI's blocks, whose import takes seconds, the generator is not.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
