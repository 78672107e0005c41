"""`--tracking mlflow`: MONAI adds its MLFlowHandler to trainer and validation. TensorBoard needs no option."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training as tiny


def test_mlflow_has_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tiny.train(tiny.write_dataset(tmp_path / "dataset"), tmp_path / "run", max_epochs=2, tracking="mlflow")

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'run' / 'tensorboard' / 'mlruns.db'}")
    experiment = client.get_experiment_by_name("monai_experiment")
    (run,) = client.search_runs(experiment.experiment_id)
    assert run.info.status == "FINISHED"
    for metric, epochs in (("reconstruction_loss", 2), ("ssim_avg", 2), ("train_loss", 2 * tiny.TRAIN_CASES)):
        assert len(client.get_metric_history(run.info.run_id, metric)) == epochs, metric
