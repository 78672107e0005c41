"""MONAI transforms: CT and radiographs in, radiographs simulated, reconstructions placed."""

from .augment import RandScanRanged, RandTissueDensityd
from .ct import StandardizeChestCTd, standardize_ct
from .load_radiograph import LoadRadiographPaird, load_radiograph, load_radiograph_pair
from .placement import PlaceInPatientd
from .pneumothorax import InsertPneumothoraxd, Pneumothorax, RandInsertPneumothoraxd, insert_pneumothorax
from .radiograph import (
    RadiographToUnitd,
    RandSimulateRadiographsd,
    SimulateRadiographsd,
    radiograph_to_unit,
    simulate_radiographs,
)

__all__ = [
    "InsertPneumothoraxd",
    "LoadRadiographPaird",
    "PlaceInPatientd",
    "Pneumothorax",
    "RadiographToUnitd",
    "RandInsertPneumothoraxd",
    "RandScanRanged",
    "RandSimulateRadiographsd",
    "RandTissueDensityd",
    "SimulateRadiographsd",
    "StandardizeChestCTd",
    "insert_pneumothorax",
    "load_radiograph",
    "load_radiograph_pair",
    "radiograph_to_unit",
    "simulate_radiographs",
    "standardize_ct",
]
