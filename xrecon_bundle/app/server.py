"""A server for this machine's own browser: bound to 127.0.0.1, a secret in its address, no other site let in."""

from __future__ import annotations

import functools
import json
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..files import InputError
from .sessions import PAGES, Sessions, Work, message
from .uploads import LIMITS_MB, check_size, receive, safe_name

HOST = "127.0.0.1"
TOKEN_HEADER = "X-Xrecon-Token"  # no other site's page can send it without being asked first
LONGEST_JSON = 100_000  # bytes
SWEEP_SECONDS = 10
TYPES = {
    ".dcm": "application/dicom",
    ".gz": "application/gzip",
    ".json": "application/json",
    ".zip": "application/zip",
}


class Refused(Exception):
    """A request that is not one of our page's: status and reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class AppServer(ThreadingHTTPServer):
    """The page and what it asks for.

    Args:
        work: what can be done, see :class:`.Work`.
        port: 0 takes a free one.

    Raises:
        InputError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, work: Any, port: int = 0) -> None:
        self._over = threading.Event()
        self.sessions = Sessions(work)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} cannot be had ({error}); give another with --port") from error
        self.token = secrets.token_urlsafe(32)
        self.work = work
        threading.Thread(target=self._sweep, daemon=True).start()

    @property
    def hosts(self) -> set[str]:
        """What a request may call this server; another name that leads here is refused (DNS rebinding)."""
        return {f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"}

    @property
    def address(self) -> str:
        """To open in a browser."""
        return f"http://{HOST}:{self.server_port}/?token={self.token}"

    def server_close(self) -> None:
        """Stop; every file of every page goes."""
        self._over.set()
        super().server_close()
        self.sessions.end()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no error to print."""

    def _sweep(self) -> None:
        while not self._over.wait(SWEEP_SECONDS):
            self.sessions.sweep()


def serve(model: str | Path, port: int) -> None:
    """Serve until Ctrl+C.

    Raises:
        InputError: the weights cannot be used, or the port cannot be had.
    """
    server = AppServer(Work(model), port)
    print(f"open {server.address}\nCtrl+C ends it", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: AppServer
    protocol_version = "HTTP/1.1"
    server_version = "xrecon"
    sys_version = ""
    timeout = 120

    def log_message(self, *args: Any) -> None:
        """Nothing is logged: addresses hold the secret, names of files may hold a patient's."""

    def do_GET(self) -> None:
        self._answer({("", 0): self._page, ("page.js", 0): self._script, ("view", 2): self._view})

    def do_POST(self) -> None:
        self._answer({("api", 1): self._api, ("close", 0): self._close})

    def do_PUT(self) -> None:
        self._answer({("file", 2): self._file})

    def _answer(self, routes: dict[tuple[str, int], Callable[..., None]]) -> None:
        self.read_all = False
        try:
            if self.headers.get("Host") not in self.server.hosts:
                raise Refused(HTTPStatus.FORBIDDEN, "this address is not the one that xrecon app printed")
            origin = self.headers.get("Origin")
            if origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
                raise Refused(HTTPStatus.FORBIDDEN, "another site's page may not ask this")
            self.address = urlsplit(self.path)
            self.query = {name: values[0] for name, values in parse_qs(self.address.query).items()}
            first, *rest = [unquote(part) for part in self.address.path.strip("/").split("/")]
            if (first, len(rest)) not in routes:
                raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
            routes[first, len(rest)](*rest)
        except Refused as error:
            self._send_json({"error": str(error)}, error.status)
        except InputError as error:
            self._send_json({"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            self._send_json({"error": f"this failed: {type(error).__name__}"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    # --- what is asked for ---------------------------------------------------------------------------------------

    def _page(self) -> None:
        self._check_token(self.query.get("token", ""))
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data: blob:; "
            "connect-src 'self'; frame-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        self._send(_read("page.html"), "text/html; charset=utf-8", policy)

    def _script(self) -> None:
        self._send(_read("page.js"), "text/javascript; charset=utf-8")

    def _view(self, session: str, name: str) -> None:
        if name not in PAGES:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        page = self.server.sessions.get(session).found(name).read_bytes()
        self._send(page, "text/html; charset=utf-8", "sandbox allow-scripts; frame-ancestors 'self'")

    def _close(self) -> None:
        # Sent as the page goes, when a browser lets it set no header.
        asked = self._json()
        self._check_token(str(asked.get("token", "")))
        self.server.sessions.close(str(asked.get("session", "")))
        self._send_json({})

    def _file(self, session: str, slot: str) -> None:
        self._check_token(self.headers.get(TOKEN_HEADER, ""))
        if slot not in LIMITS_MB:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        found = self.server.sessions.get(session)
        length = self._length()
        name = self.query.get("name", "file")
        check_size(length, slot, safe_name(name))
        if not found.busy.acquire(blocking=False):
            raise InputError("this page is at work already; wait until it is done")
        try:
            self.read_all = True
            found.files.pop(slot, None)
            found.files[slot] = receive(self.rfile, length, found.folder, slot, name)
        finally:
            found.busy.release()
        self._send_json({"name": found.files[slot].name})

    def _api(self, what: str) -> None:
        self._check_token(self.headers.get(TOKEN_HEADER, ""))
        options = self._json()
        sessions, work = self.server.sessions, self.server.work
        if what == "session":
            self._send_json({"session": sessions.open().id, "limits_mb": LIMITS_MB})
            return
        session = sessions.get(str(options.get("session", "")))
        try:
            if what == "state":
                self._send_json(session.state)
            elif what == "place":
                self._send_json(sessions.do(session, lambda tell: work.place(session, options)))
            elif what == "reconstruct":
                session.given("pa", "lateral")
                sessions.start(session, lambda tell: work.reconstruct(session, options, tell))
                self._send_json(session.state)
            elif what == "segment":
                of = str(options.get("of", ""))
                sessions.start(session, lambda tell: work.segment(session, of, tell))
                self._send_json(session.state)
            elif what == "download":
                path = session.found(str(options.get("name", "")))
                self._send(path.read_bytes(), TYPES.get(path.suffix, "application/octet-stream"))
            else:
                raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        except Refused:
            raise
        except Exception as error:
            raise InputError(message(session, error)) from error

    # --- how it is asked and answered ----------------------------------------------------------------------------

    def _check_token(self, given: str) -> None:
        if not secrets.compare_digest(given.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "open the address that xrecon app printed, with its token")

    def _length(self) -> int:
        text = self.headers.get("Content-Length", "")
        if not text.isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a request says how long it is")
        return int(text)

    def _json(self) -> dict[str, Any]:
        length = self._length()
        if length > LONGEST_JSON:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long")
        self.read_all = True
        try:
            found = json.loads(self.rfile.read(length) or b"{}")
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "no JSON") from error
        if not isinstance(found, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "no JSON object")
        return found

    def _send_json(self, content: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        if self.command != "GET" and not self.read_all:
            self.close_connection = True  # what the body holds is not the next request
        self._send(json.dumps(content).encode(), "application/json", status=status)

    def _send(
        self, body: bytes, kind: str, policy: str = "default-src 'none'", status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


@functools.cache
def _read(name: str) -> bytes:
    return (resources.files(__package__) / "page" / name).read_bytes()
