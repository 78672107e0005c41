"""The one error of a training that fails, whatever the batch holds. test_never_lose_work.py breaks a whole one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from xrecon_bundle.files import InputError
from xrecon_bundle.handlers import ExplainFailure


@pytest.mark.parametrize("names", [("image", "label"), ("image", "coarse"), ("image", "label", "coarse")])
def test_the_batch_that_failed_is_kept(names: tuple[str, ...], tmp_path: Path) -> None:
    batch = {name: torch.full((1, 2), number) for number, name in enumerate(names)}

    def step(engine: Engine, batch: dict) -> None:
        raise FloatingPointError("a generator loss of nan")

    engine = Engine(step)
    ExplainFailure(str(tmp_path)).attach(engine)
    with pytest.raises(InputError, match=r"batch of ann-00003 gave a generator loss of nan in epoch 1, iteration 1"):
        engine.run([{"case": ["ann-00003"], "start": torch.zeros(1, 3), **batch}])
    (path,) = tmp_path.iterdir()
    kept = np.load(path, allow_pickle=False)
    assert {*kept} == {"case", *names}
    for name in names:
        assert (kept[name] == batch[name].numpy()).all()
