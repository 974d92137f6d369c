"""Asks a model behind an OpenAI-compatible URL, patiently.

Knows HTTP and the shape of /v1/chat/completions; knows nothing of what is asked. Nothing is asked
unless someone calls `ChatApi.ask`, and the key is sent in the request's header and nowhere else.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from fitune.errors import ConfigError, ResourceError

SECONDS = 120
"""A request without an answer for so long is given up and made again."""

TRIES = 6
PATIENCE = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses that may pass: too many requests, a server that starts or is overloaded."""

LONGEST_PAUSE = 60.0


class ChatApi:
    """
    Args:
        url: up to ``/v1``, with or without ``/chat/completions``.
        model: as the API calls it.
        key_env: the environment variable that holds the key; None: no key is sent.
        pause: what waits for so many seconds.

    Raises:
        ConfigError: the environment variable is not set.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_env: str | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        end = "/chat/completions"
        self.url = url.rstrip("/").removesuffix(end) + end
        self.model = model
        self._pause = pause
        self._key = os.environ.get(key_env, "").strip() if key_env else ""
        if key_env and not self._key:
            raise ConfigError(
                f"the environment variable '{key_env}', which should hold the key for {url}, is "
                "not set",
                fix=f"set it: export {key_env}=…, or remove key_env where no key is needed",
            )
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(
                f"the environment variable '{key_env}' holds characters that no key has",
                fix="set it again, without line ends",
            )
        self._opener = urllib.request.build_opener(_NoRedirects)

    def ask(self, messages: list[dict[str, str]], *, most_tokens: int) -> str:
        """What the model answers, at temperature 0.

        Requests that fail in a way that may pass are made again, up to `TRIES` times, after 1, 2,
        4, … seconds or what the server asks for (RFC 9110, section 10.2.3), 60 at most.

        Raises:
            ConfigError: the server refuses the request.
            ResourceError: it cannot be reached, or does not answer as such a server does.
        """
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": most_tokens,
        }
        for attempt in range(TRIES):
            try:
                return self._text(self._post(body))
            except urllib.error.HTTPError as error:
                with error:
                    said = self._without_key(error.read(400).decode("utf-8", "replace"))
                problem = f"{self.url} answers {error.code} ({' '.join(said.split())[:200]})"
                if error.code not in PATIENCE:
                    raise ConfigError(
                        problem, fix="check the URL, the model's name and the key"
                    ) from None
                pause = _seconds(error.headers.get("Retry-After"), 2.0**attempt)
            except (OSError, http.client.HTTPException, UnicodeError) as error:  # also time-outs
                problem = f"{self.url} cannot be reached ({self._without_key(str(error))})"
                pause = 2.0**attempt
            if attempt + 1 < TRIES:
                self._pause(min(pause, LONGEST_PAUSE))
        raise ResourceError(
            f"{problem}, {TRIES} times in a row", fix="see whether the server runs, then go on"
        )

    def _post(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "fitune"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(
            self.url, json.dumps(body).encode("utf-8"), headers, method="POST"
        )
        with self._opener.open(request, timeout=SECONDS) as answer:
            content: bytes = answer.read()
        return content

    def _text(self, content: bytes) -> str:
        try:
            return str(json.loads(content)["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError):
            said = self._without_key(content[:100].decode("utf-8", "replace"))
            raise ResourceError(
                f"{self.url} does not answer as /v1/chat/completions does, but with {said!r}",
                fix="give the URL of an OpenAI-compatible server, up to /v1",
            ) from None

    def _without_key(self, text: str) -> str:
        """Servers repeat what they were sent, and messages are shown and kept."""
        return text.replace(self._key, "…") if self._key else text


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would send the key to wherever it is redirected."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _seconds(header: str | None, otherwise: float) -> float:
    """What a Retry-After header asks for where it gives seconds, and not a date."""
    return float(header) if header and header.isdecimal() else otherwise
