"""Data: dataset folders, the synthetic thorax, one real CT that anyone can get."""

from .cases import list_cases, split_cases, write_case
from .cohort import write_pseudo_cohort, write_synthetic_cohort
from .lidc import fetch_lidc, fetch_lidc_dicom
from .prepare import prepare, simulate_case
from .radiographs import list_radiographs

__all__ = [
    "fetch_lidc",
    "fetch_lidc_dicom",
    "list_cases",
    "list_radiographs",
    "prepare",
    "simulate_case",
    "split_cases",
    "write_case",
    "write_pseudo_cohort",
    "write_synthetic_cohort",
]
