"""What a page of `xrecon app` asks, without a browser."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import quote

from xrecon_bundle.app.server import TOKEN_HEADER, AppServer


class Page:
    """An open page. ``ask`` gives status and content; the others fail where the status is not 200."""

    def __init__(self, server: AppServer) -> None:
        self.server = server
        self.session = self.api("session")["session"]

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=120)
        given = {TOKEN_HEADER: self.server.token} | {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if "json" in answer.headers["Content-Type"] else content

    def send(self, slot: str, name: str, content: bytes) -> tuple[int, Any]:
        return self.ask("PUT", f"/file/{self.session}/{slot}?name={quote(name, safe='')}", content)

    def call(self, what: str, **options: Any) -> tuple[int, Any]:
        body = json.dumps({"session": getattr(self, "session", ""), **options}).encode()
        return self.ask("POST", f"/api/{what}", body)

    def api(self, what: str, **options: Any) -> Any:
        status, content = self.call(what, **options)
        assert status == 200, content
        return content

    def work(self, what: str, **options: Any) -> dict[str, Any]:
        """Until it is done; the last state."""
        self.api(what, **options)
        while (state := self.api("state"))["running"]:
            time.sleep(0.05)
        return state
