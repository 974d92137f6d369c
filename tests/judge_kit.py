"""A small OpenAI-compatible server on this machine, which answers as a test wants."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | tuple[int, dict[str, str], bytes]
"""What the model says, or a status, headers and body."""


@dataclass
class Served:
    """What the server was asked: bodies and headers, in order."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def serving(reply: Callable[[dict[str, Any]], Reply]) -> Iterator[Served]:
    """A server whose model answers a request's body with `reply`."""
    served, lock = Served(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                served.bodies.append(body)
                served.headers.append(dict(self.headers))
                served.paths.append(self.path)
                said = reply(body)
            if isinstance(said, str):
                message = {"role": "assistant", "content": said}
                said = (200, {}, json.dumps({"choices": [{"message": message}]}).encode())
            status, headers, content = said
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Tests read what was asked from `Served`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answers_of(body: dict[str, Any]) -> tuple[str, str]:
    """The two answers shown to the judge, as they stand."""
    text = body["messages"][-1]["content"]
    found = re.search(r"## Answer A\n(.*)\n\n## Answer B\n(.*)\Z", text, re.DOTALL)
    assert found
    return found[1], found[2]


def prefers_the_first(body: dict[str, Any]) -> str:
    return "[[A]]"


def prefers_the_longer(body: dict[str, Any]) -> str:
    first, second = answers_of(body)
    return "[[A]]" if len(first) > len(second) else "[[B]]" if len(first) < len(second) else "tie"
