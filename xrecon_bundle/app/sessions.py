"""One open page each: its files, the work that is done for it, and that nothing of it stays."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import InputError, one_line, to_json

IDLE_SECONDS = 180  # without a word from its page; browsers let a hidden page speak once a minute
MOST_SESSIONS = 32
RESULTS = (  # in the order in which the page offers them
    *("ct.nii.gz", "ct.zip", "ct.json"),
    *("segmentation.nii.gz", "segmentation.dcm", "segmentation.sr.dcm", "segmentation.json"),
)
PAGES = ("ct.html", "segmentation.html")


class Session:
    """The files of one page, and the state of its work. ``seen`` is when its page was last heard of.

    ``series`` is the folder of the reconstructed CT as DICOM; ``note`` is what the page says beside a result.
    """

    def __init__(self, folder: Path) -> None:
        self.id = secrets.token_urlsafe(32)
        self.folder = folder / secrets.token_hex(8)
        self.folder.mkdir(mode=0o700)
        self.results = self.folder / "results"
        self.results.mkdir()
        self.series = self.folder / "series"
        self.note = ""
        self.files: dict[str, Path] = {}
        self.seen = time.monotonic()
        self.closed = False
        self.busy = threading.Lock()
        self.state: dict[str, Any] = {"stage": "", "share": 0.0, "running": False}

    def given(self, *slots: str) -> list[Path]:
        """The files of these slots.

        Raises:
            InputError: one is missing.
        """
        names = {"pa": "the PA X-ray", "lateral": "the lateral X-ray", "ct": "a CT"}
        for slot in slots:
            if slot not in self.files:
                raise InputError(f"{names[slot]} is missing; drop it into its box")
        return [self.files[slot] for slot in slots]

    def plain(self, text: str) -> str:
        """A message or a record with the files under the names that the user knows."""
        for path in self.files.values():
            text = text.replace(f"{path.parent}/", "")
        return text.replace(f"{self.results}/", "").replace(f"{self.folder}/", "")

    def offered(self) -> list[str]:
        """Names of the results that there are."""
        return [name for name in RESULTS if (self.results / name).is_file()]

    def clear(self) -> None:
        """Delete all results."""
        shutil.rmtree(self.series, ignore_errors=True)
        for path in self.results.iterdir():
            path.unlink()

    def found(self, name: str) -> Path:
        """A result or page by its name.

        Raises:
            InputError: there is none.
        """
        if name not in (*RESULTS, *PAGES) or not (self.results / name).is_file():
            raise InputError(f"there is no {name} yet")
        return self.results / name


class Sessions:
    """All of them, in one temporary folder; one piece of work at a time, as memory allows.

    Args:
        work: what can be done, see :class:`.work.Work`.
    """

    def __init__(self, work: Any) -> None:
        self.work = work
        self.place = tempfile.TemporaryDirectory(prefix="xrecon-app-")
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def open(self) -> Session:
        """A new one.

        Raises:
            InputError: there are too many.
        """
        self.sweep()
        with self._lock:
            if len(self._sessions) >= MOST_SESSIONS:
                raise InputError("too many pages are open; close some of them")
            session = Session(Path(self.place.name))
            self._sessions[session.id] = session
            return session

    def get(self, name: str) -> Session:
        """The one of this id.

        Raises:
            InputError: it is over.
        """
        with self._lock:
            session = self._sessions.get(name)
        if session is None:
            raise InputError("this page was closed or idle for too long, and its files are gone; load it again")
        session.seen = time.monotonic()
        return session

    def close(self, name: str) -> None:
        """Forget a session and its files; where work runs for it, when that ends."""
        with self._lock:
            session = self._sessions.pop(name, None)
        if session is not None:
            session.closed = True
            if session.busy.acquire(blocking=False):
                shutil.rmtree(session.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Close what was not heard of for :data:`IDLE_SECONDS` and is not at work."""
        late = time.monotonic() - IDLE_SECONDS
        with self._lock:
            idle = [
                name for name, session in self._sessions.items() if session.seen < late and not session.busy.locked()
            ]
        for name in idle:
            self.close(name)

    def end(self) -> None:
        """Close all, and remove the folder."""
        for name in list(self._sessions):
            self.close(name)
        self.place.cleanup()

    def do(self, session: Session, what: Callable[[Callable[[str, float], None]], Any]) -> Any:
        """Do ``what`` when its turn comes; it is given a function that tells stage and share done.

        Raises:
            InputError: the session is at work already, or what ``what`` raises.
        """
        if not session.busy.acquire(blocking=False):
            raise InputError("this page is at work already; wait until it is done")
        try:
            session.note = ""
            session.state = {"stage": "waiting for other work", "share": 0.0, "running": True}
            with self._turn:
                result = what(lambda stage, share: session.state.update(stage=stage, share=share))
            done = {"stage": "done", "share": 1.0, "running": False}
            session.state = done | {"results": session.offered(), "note": session.note}
            return result
        except BaseException as error:
            session.state = {"stage": "", "share": 0.0, "running": False, "error": message(session, error)}
            raise
        finally:
            session.busy.release()
            if session.closed:
                shutil.rmtree(session.folder, ignore_errors=True)

    def start(self, session: Session, what: Callable[[Callable[[str, float], None]], Any]) -> None:
        """:meth:`do` in a thread; the session's state says what became of it."""
        if session.busy.locked():
            raise InputError("this page is at work already; wait until it is done")
        session.state = {"stage": "waiting", "share": 0.0, "running": True}

        def run() -> None:
            try:
                self.do(session, what)
            except Exception:  # the state holds it
                return

        threading.Thread(target=run, daemon=True).start()


def message(session: Session, error: BaseException) -> str:
    """What the page says of an error: of bad input what the command line says."""
    if isinstance(error, InputError):
        return session.plain(str(error))
    return session.plain(f"this failed: {type(error).__name__}: {one_line(error)}")


class Work:
    """What a page can ask for: the same calls as the command line's.

    Args:
        model: weights file, loaded once.
    """

    def __init__(self, model: str | Path) -> None:
        from ..networks.weights import load_generator

        self.model = model
        self.generator = load_generator(model, None).eval()

    def place(self, session: Session, options: dict[str, Any]) -> dict[str, Any]:
        """The picture of how the X-rays were placed (data URI), the record and the warnings."""
        from ..report.placement import write_placement_picture
        from ..workflows.predictor import gate

        files, loading = _order(session, options)
        placed = self._predictor(loading).read(files)
        picture = session.folder / "placement.png"
        write_placement_picture(picture, placed.image, placed.record)
        uri = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
        warnings = list(placed.warnings)
        try:
            quality = gate(placed, files)
            warnings += quality.warnings
        except InputError as refusal:
            warnings.append(str(refusal))
        told = {"record": placed.record, "warnings": warnings}
        return {"picture": uri, **json.loads(session.plain(to_json(told)))}

    def reconstruct(self, session: Session, options: dict[str, Any], tell: Callable[[str, float], None]) -> None:
        """Leave CT, JSON, DICOM series (zipped) and page among the session's results."""
        from ..workflows.reconstruct import write_reconstruction

        files, loading = _order(session, options)
        session.clear()
        result = self._predictor(loading)(files, tell)
        result = result._replace(report=json.loads(session.plain(to_json(result.report))))
        tell("writing", 0.8)
        write_reconstruction(result, session.results / "ct.nii.gz", "nifti", view=True)
        write_reconstruction(result, session.series, "dicom")
        with zipfile.ZipFile(session.results / "ct.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(session.series.iterdir()):
                archive.write(path, f"ct/{path.name}")

    def segment(self, session: Session, of: str, tell: Callable[[str, float], None]) -> None:
        """Leave label map, statistics and page of the session's CT: the one given, or the one reconstructed.

        Of a CT in DICOM also a DICOM SEG and its report, which refer to its images: of a reconstruction those that
        were zipped. Where there can be none, the session's note says why.
        """
        from ..workflows.segment import segment_file, write_dicom_labels

        if of == "given":
            session.clear()
            (ct,) = session.given("ct")
            series = ct
        else:
            ct, series = session.found("ct.nii.gz"), session.series
        tell("finding lungs and free air", 0.2)
        labels = session.results / "segmentation.nii.gz"
        found = segment_file(ct, labels, explain=True)
        if series.is_dir():
            tell("writing", 0.9)
            try:
                write_dicom_labels(session.results / "segmentation.dcm", labels, series, found)
            except InputError as error:
                session.note = f"No label map in DICOM: {session.plain(str(error))}"
        statistics = session.results / "segmentation.json"
        statistics.write_text(session.plain(statistics.read_text()))

    def _predictor(self, loading: dict[str, Any]) -> Any:
        from ..workflows.predictor import Predictor

        return Predictor(self.generator, weights=self.model, **loading)


def _order(session: Session, options: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
    """The session's X-rays, in the order that the page asks for, and the options of placing them."""
    files = session.given("pa", "lateral")
    loading: dict[str, Any] = {"invert": bool(options.get("invert"))}
    field = options.get("field_of_view_mm")
    if field not in (None, ""):
        try:
            loading["field_of_view_mm"] = float(field)
        except (TypeError, ValueError) as error:
            raise InputError(f"field of view '{field}' is no length in mm") from error
    if options.get("accept_any_view"):
        loading["accept_any_view"] = True
    if options.get("orientation") is None:
        return files, loading
    try:
        loading["orientation"] = [(int(turned), bool(mirrored)) for turned, mirrored in options["orientation"]]
    except (TypeError, ValueError) as error:
        raise InputError("an orientation is degrees and whether it is mirrored, of both views") from error
    return files[::-1] if options.get("exchanged") else files, loading
