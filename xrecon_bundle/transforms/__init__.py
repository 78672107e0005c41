"""MONAI dictionary transforms, thin wrappers of what the other rooms compute."""

from .augment import RandScanRanged, RandTissueDensityd
from .ct import StandardizeChestCTd
from .load_case import LoadCased
from .place_in_patient import PlaceInPatientd
from .pneumothorax import InsertPneumothoraxd, RandInsertPneumothoraxd
from .radiograph import RadiographToUnitd, RandSimulateRadiographsd, SimulateRadiographsd
from .random_patients import RandPseudoPatientd, RandSynthesizeThoraxd
from .segmentation import PTXSegd

__all__ = [
    "InsertPneumothoraxd",
    "LoadCased",
    "PTXSegd",
    "PlaceInPatientd",
    "RadiographToUnitd",
    "RandInsertPneumothoraxd",
    "RandPseudoPatientd",
    "RandScanRanged",
    "RandSimulateRadiographsd",
    "RandSynthesizeThoraxd",
    "RandTissueDensityd",
    "SimulateRadiographsd",
    "StandardizeChestCTd",
]
