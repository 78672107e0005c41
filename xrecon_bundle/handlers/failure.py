"""What is said and kept when a training fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from ..files import InputError, atomic_path

KEPT = (CommonKeys.IMAGE, CommonKeys.LABEL, "coarse")


class ExplainFailure:
    """End a training that fails with one clear error, and keep the batch that made a loss or a gradient non-finite.

    A ``FloatingPointError``, raised by the iteration before the weights are touched, becomes an :class:`InputError`
    that names the cases and the file ``failed_epoch=E_iteration=I_rank=R.npz`` with the arrays ``image``, ``label``,
    ``coarse`` (what of these there is) and ``case`` (``numpy.load`` needs no pickle for it). An :class:`InputError`
    that a library wrapped in errors of its own comes out again as itself. Everything else passes.

    Args:
        folder: where the batch is kept.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def attach(self, engine: Engine) -> None:
        """Take over when the engine's run raises."""
        engine.add_event_handler(Events.EXCEPTION_RAISED, self)

    def __call__(self, engine: Engine, error: BaseException) -> None:
        """Raise the error that says most."""
        if isinstance(error, FloatingPointError):
            raise self._non_finite(engine, error) from error
        for cause in _causes(error):
            if isinstance(cause, InputError):
                raise cause
        raise error

    def _non_finite(self, engine: Engine, error: FloatingPointError) -> InputError:
        state = engine.state
        batch = cast(dict, state.batch)
        names = [str(name) for name in batch["case"]]
        path = self.folder / f"failed_epoch={state.epoch}_iteration={state.iteration}_rank={idist.get_rank()}.npz"
        arrays: dict[str, Any] = {str(key): np.asarray(batch[key].cpu()) for key in KEPT if key in batch}
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, case=np.array(names), **arrays)
        return InputError(
            f"{path}: this batch of {', '.join(names)} gave {error} in epoch {state.epoch}, iteration "
            f"{state.iteration}; look at it. If it is sound, resume with a lower learning_rate or with gradient_clip"
        )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
