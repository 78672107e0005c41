"""MONAI dictionary transforms, thin wrappers of what the other rooms compute."""

from .augment import RandScanRanged, RandTissueDensityd
from .case_preprocessing import CasePreprocessingd
from .ct import StandardizeChestCTd
from .films import RandFilmd, RandPlaceFilmd, SimulateMaterialsd
from .intensity import HUToUnitd, UnitToHUd
from .load_case import LoadCased
from .place_in_patient import PlaceInPatientd
from .pneumothorax import InsertPneumothoraxd, RandInsertPneumothoraxd
from .radiograph import LoadBiplanard, RadiographToUnitd, RandSimulateRadiographsd, SimulateRadiographsd
from .random_patients import RandPseudoPatientd, RandSynthesizeThoraxd
from .segmentation import PTXSegd

__all__ = [
    "CasePreprocessingd",
    "HUToUnitd",
    "InsertPneumothoraxd",
    "LoadBiplanard",
    "LoadCased",
    "PTXSegd",
    "PlaceInPatientd",
    "RadiographToUnitd",
    "RandFilmd",
    "RandInsertPneumothoraxd",
    "RandPlaceFilmd",
    "RandPseudoPatientd",
    "RandScanRanged",
    "RandSimulateRadiographsd",
    "RandSynthesizeThoraxd",
    "RandTissueDensityd",
    "SimulateMaterialsd",
    "SimulateRadiographsd",
    "StandardizeChestCTd",
    "UnitToHUd",
]
