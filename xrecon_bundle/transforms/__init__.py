"""MONAI transforms: CT and radiographs in, radiographs simulated, reconstructions placed."""

from .ct import StandardizeChestCTd, standardize_ct
from .load_radiograph import LoadRadiographPaird, load_radiograph, load_radiograph_pair
from .placement import PlaceInPatientd
from .radiograph import (
    RadiographToUnitd,
    RandSimulateRadiographsd,
    SimulateRadiographsd,
    radiograph_to_unit,
    simulate_radiographs,
)

__all__ = [
    "LoadRadiographPaird",
    "PlaceInPatientd",
    "RadiographToUnitd",
    "RandSimulateRadiographsd",
    "SimulateRadiographsd",
    "StandardizeChestCTd",
    "load_radiograph",
    "load_radiograph_pair",
    "radiograph_to_unit",
    "simulate_radiographs",
    "standardize_ct",
]
