"""How far a reconstruction can be trusted: image measures, overlap of regions, agreement of measurements."""

import lazy_loader

# By need: MONAI's metrics take seconds to import, which the plain measures do without.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
