"""A DICOMweb server (PS3.18): studies searched (QIDO-RS), fetched (WADO-RS) and stored (STOW-RS).

User and password come from ``~/.netrc`` (or the file that ``$NETRC`` names), as for curl: never from a command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pydicom
from pydicom.dataset import Dataset

from ..files import InputError, one_line

TIMEOUT_S = (10, 300)  # to connect, and without a byte


class StudyEntry(NamedTuple):
    """What a server says of a study: UID, patient's ID and date (``YYYYMMDD``); empty: it does not say."""

    uid: str
    patient: str
    date: str


class DICOMwebServer:
    """A server, by the root of its DICOMweb service, such as ``http://127.0.0.1:8042/dicom-web``.

    Raises:
        InputError: dicomweb-client is missing, or ``url`` is no such address. Every method: the server does not answer,
            asks for a password, or speaks no DICOMweb.
    """

    def __init__(self, url: str) -> None:
        client = _require_client()
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if "@" in parts.netloc:
            raise InputError("the address holds a password, which logs would show; put it into ~/.netrc")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url}: no address of a server; give one like http://127.0.0.1:8042/dicom-web")
        with self._asked():
            self.client = client(url=self.url, timeout=TIMEOUT_S, permissive_uid=True)
            self.client.set_http_retry_params(retry=False)

    def find_studies(self, study: str | None = None, patient: str | None = None) -> list[StudyEntry]:
        """The studies with this StudyInstanceUID or PatientID, by date."""
        wanted = {"StudyInstanceUID": study} if study else {"PatientID": patient}
        with self._asked():
            found = self.client.search_for_studies(search_filters=wanted)
        entries = (
            StudyEntry(*(_text(one, name) for name in ("StudyInstanceUID", "PatientID", "StudyDate"))) for one in found
        )
        return sorted(entries, key=lambda entry: (entry.date, entry.uid))

    def series(self, study: str, modalities: Sequence[str]) -> list[str]:
        """UIDs of a study's series of these modalities."""
        with self._asked():
            found = self.client.search_for_series(study)
        return [_text(one, "SeriesInstanceUID") for one in found if _text(one, "Modality") in modalities]

    def fetch(self, study: str, series: Sequence[str], folder: Path) -> list[Path]:
        """Write every instance of these series into ``folder`` as ``1.dcm``, ``2.dcm`` ...; returns the paths."""
        paths: list[Path] = []
        for uid in series:
            with self._asked():
                instances = self.client.retrieve_series(study, uid)
            for instance in instances:
                paths.append(folder / f"{len(paths) + 1}.dcm")
                instance.save_as(paths[-1], enforce_file_format=True)
        return paths

    def store(self, study: str, paths: Sequence[Path]) -> None:
        """Store DICOM files in a study, all in one request.

        Raises:
            InputError: also where the server keeps none or only some of them.
        """
        with self._asked():
            answer = self.client.store_instances([pydicom.dcmread(path) for path in paths], study)
        refused = list(answer.get("FailedSOPSequence") or [])
        kept = list(answer.get("ReferencedSOPSequence") or [])
        if refused or len(kept) != len(paths):
            reasons = sorted({f"0x{int(item.get('FailureReason') or 0):04X}" for item in refused})
            why = f", FailureReason {', '.join(reasons)}" if reasons else ""
            raise InputError(f"{self.url}: kept {len(kept)} of {len(paths)} images{why}; look into the server's log")

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Turn what goes wrong between us and the server into one :class:`InputError`."""
        import requests

        try:
            yield
        except InputError:
            raise
        except requests.exceptions.HTTPError as error:
            raise InputError(f"{self.url}: {self._refusal(error)}") from error
        except requests.exceptions.SSLError as error:
            raise InputError(
                f"{self.url}: its certificate is not trusted ({one_line(error)}); name its CA in $REQUESTS_CA_BUNDLE"
            ) from error
        except requests.exceptions.Timeout as error:
            raise InputError(
                f"{self.url}: the server does not answer in time; try again, or look at the server"
            ) from error
        except requests.exceptions.ConnectionError as error:
            raise InputError(
                f"{self.url}: no server answers there; check the address, and that the server runs"
            ) from error
        except Exception as error:  # what its answer leads to, where it is no DICOMweb
            raise InputError(
                f"{self.url}: the answer is no DICOMweb ({one_line(error)}); give the root of the DICOMweb service, of "
                "Orthanc http://HOST:8042/dicom-web"
            ) from error

    def _refusal(self, error: Any) -> str:
        status = error.response.status_code if error.response is not None else 0
        host = urlsplit(self.url).hostname
        if status in (401, 403):
            return (
                f"the server asks for a user and password, or does not let this user in ({status}); "
                f"put them into ~/.netrc: machine {host} login USER password PASSWORD"
            )
        if status == 404:
            return "no DICOMweb there (404); give the root of the service, of Orthanc http://HOST:8042/dicom-web"
        return f"the server refused with status {status} ({one_line(error)}); look into its log"


def _require_client() -> Any:
    try:
        from dicomweb_client import DICOMwebClient
    except ImportError as error:
        raise InputError("DICOMweb needs dicomweb-client: pip install 'xrecon-bundle[dicomweb]'") from error
    return DICOMwebClient


def _text(entry: dict[str, Any], name: str) -> str:
    """An attribute of an entry of the server's answer, as DICOM JSON."""
    found = Dataset.from_json({tag: value for tag, value in entry.items() if tag == _tag(name)})
    return str(found.get(name) or "").strip()


def _tag(name: str) -> str:
    return f"{pydicom.datadict.tag_for_keyword(name):08X}"
