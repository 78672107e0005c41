"""Ignite handlers."""

from .checkpoint import SaveBestModel, TrainingCheckpoint
from .evaluation import EvaluationReport
from .failure import ExplainFailure
from .logs import EpochLog
from .metrics import better, image_metric_handlers
from .moving_average import MovingAverage
from .panels import ReconstructionPanels
from .seeding import SeedEpoch

__all__ = [
    "EpochLog",
    "EvaluationReport",
    "ExplainFailure",
    "MovingAverage",
    "ReconstructionPanels",
    "SaveBestModel",
    "SeedEpoch",
    "TrainingCheckpoint",
    "better",
    "image_metric_handlers",
]
