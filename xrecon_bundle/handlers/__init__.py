"""Ignite handlers."""

from .checkpoint import SaveBestModel, TrainingCheckpoint
from .evaluation import EvaluationReport
from .logs import EpochLog
from .metrics import image_metric_handlers
from .panels import ReconstructionPanels

__all__ = [
    "EpochLog",
    "EvaluationReport",
    "ReconstructionPanels",
    "SaveBestModel",
    "TrainingCheckpoint",
    "image_metric_handlers",
]
