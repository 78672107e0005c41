"""MONAI transforms: CT and radiographs in, radiographs simulated, reconstructions placed."""

from .ct import StandardizeChestCTd, standardize_ct
from .placement import PlaceInPatientd
from .radiograph import (
    RadiographToUnitd,
    RandSimulateRadiographsd,
    SimulateRadiographsd,
    radiograph_to_unit,
    simulate_radiographs,
)

__all__ = [
    "PlaceInPatientd",
    "RadiographToUnitd",
    "RandSimulateRadiographsd",
    "SimulateRadiographsd",
    "StandardizeChestCTd",
    "radiograph_to_unit",
    "simulate_radiographs",
    "standardize_ct",
]
