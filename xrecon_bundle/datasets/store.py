"""The one resumable store of cases: each made or reused, several at a time, past a bad one, through a kill.

A case is a folder with a record (JSON) beside its files. The record holds the *key*, all that the files depend on, and
the SHA-256 of every file. A case whose key is the same and whose files are whole is not made again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from ..files import InputError, file_sha256, to_json

FILES = "files"  # of a record: SHA-256 by name

Item = TypeVar("Item")


class Outcome(NamedTuple):
    """What became of a case. Either there is a ``record``, or a ``reason`` why not."""

    record: dict[str, Any] | None = None
    reused: bool = False
    reason: str | None = None

    @property
    def finished(self) -> dict[str, Any]:
        """The record of a case that did not fail."""
        assert self.record is not None, self.reason
        return self.record


def finished_record(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """The record at ``path`` if it has this ``key`` and every file that it lists is there and whole; else None."""
    try:
        record = json.loads(path.read_text())
        wanted = json.loads(to_json(key))  # as it reads when it comes back from a file
        same = all(record[name] == value for name, value in wanted.items())
        whole = same and all(file_sha256(path.parent / name) == digest for name, digest in record[FILES].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if whole else None


def make_or_reuse(path: Path, key: dict[str, Any], make: Callable[[], None]) -> Outcome:
    """Reuse the case whose record is at ``path``, or ``make`` it, which writes that record last."""
    record = finished_record(path, key)
    if record is not None:
        return Outcome(record, reused=True)
    make()
    return Outcome(json.loads(path.read_text()))


def run_cases(
    make: Callable[[Item], Outcome],
    items: Sequence[Item],
    description: str,
    workers: int = 1,
    cluster: str | None = None,
    threads: int | None = 1,
) -> list[Outcome]:
    """``make`` every item; a bad one does not stop the others.

    Processes end when this one is killed, so that none goes on writing beside the next run.

    Args:
        make: from an item to its outcome; with several workers it must pickle. An :class:`InputError` becomes the
            outcome's ``reason``, and so does any other exception.
        items: what is made.
        description: of the progress bar.
        workers: processes at a time. 1: in this process.
        cluster: address of a Dask scheduler (``tcp://host:port``); takes the place of ``workers``.
        threads: of PyTorch, for each item; None: as many as it is set to.

    Returns:
        the outcomes in the order of ``items``.

    Raises:
        InputError: there is no worker, the cluster cannot be reached, or a worker was killed.
    """
    if not isinstance(workers, int) or workers < 1:
        raise InputError(f"workers {workers!r}: how many processes work at a time, 1 or more")
    safely = partial(_make_safely, make, threads)
    with tqdm(total=len(items), desc=description, unit="case") as progress:
        if workers == 1 and cluster is None:
            outcomes = []
            for item in items:
                outcomes.append(safely(item))
                progress.update()
            return outcomes
        done: dict[int, Outcome] = {}
        with _executor(workers, cluster) as pool:
            futures: dict[Future, int] = {pool.submit(safely, item): place for place, item in enumerate(items)}
            try:
                for future in as_completed(futures):
                    done[futures[future]] = future.result()
                    progress.update()
            except BrokenProcessPool as error:
                raise InputError(
                    f"{description}: a worker was killed, probably for memory; {len(done)} of {len(items)} cases are "
                    "done and kept, run the command again with fewer workers"
                ) from error
            finally:
                for future in futures:
                    future.cancel()
    return [done[place] for place in range(len(items))]


def _make_safely(make: Callable[[Item], Outcome], threads: int | None, item: Item) -> Outcome:
    try:
        with _threads(threads):
            return make(item)
    except InputError as error:
        return Outcome(reason=str(error))
    except Exception as error:  # a case must not stop the others
        return Outcome(reason=f"unexpected {type(error).__name__}: {error}")


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _executor(workers: int, cluster: str | None) -> Iterator[Executor]:
    if cluster is None:
        context = multiprocessing.get_context("spawn")  # ITK and torch have threads, which do not survive a fork
        with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
            yield pool
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("a cluster needs Dask: pip install 'xrecon-bundle[cluster]'") from error
    try:
        client = Client(cluster, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"{cluster}: no Dask scheduler answers ({error}); start one with `dask scheduler`") from error
    with client:
        yield client.get_executor(pure=False)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a worker

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
