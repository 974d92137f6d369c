"""A model behind a URL, asked patiently: statuses, pauses, the key, and what is no such server."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from fitune.errors import ConfigError, ResourceError
from fitune.ladder.chat_api import LONGEST_PAUSE, TRIES, ChatApi
from judge_kit import Reply, serving

QUESTION = [{"role": "user", "content": "Which?"}]


def in_turn(*replies: Reply) -> Any:
    left = list(replies)
    return lambda body: left.pop(0)


def test_it_asks_what_such_servers_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret\n")
    with serving(lambda body: "yes") as served:
        for url in (served.url, f"{served.url}/", f"{served.url}/chat/completions"):
            api = ChatApi(url, "judge-1", "SOME_KEY")
            assert api.ask(QUESTION, most_tokens=7) == "yes"
        assert ChatApi(served.url, "judge-1").ask(QUESTION, most_tokens=7) == "yes"
    assert set(served.paths) == {"/v1/chat/completions"}
    assert served.bodies[0] == {
        "model": "judge-1", "messages": QUESTION, "temperature": 0, "max_tokens": 7,
    }  # fmt: skip
    assert [h.get("Authorization") for h in served.headers] == ["Bearer sk-secret"] * 3 + [None]


def test_what_may_pass_is_waited_for() -> None:
    pauses: list[float] = []
    replies = (
        (429, {"Retry-After": "7"}, b"slow down"),
        (503, {}, b""),
        (500, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b""),
        (429, {"Retry-After": "99999"}, b""),
        "done",
    )
    with serving(in_turn(*replies)) as served:
        api = ChatApi(served.url, "m", pause=pauses.append)
        assert api.ask(QUESTION, most_tokens=1) == "done"
    assert pauses == [7, 2, 4, LONGEST_PAUSE]


def test_patience_ends() -> None:
    pauses: list[float] = []
    with serving(lambda body: (503, {}, b"still loading")) as served:
        api = ChatApi(served.url, "m", pause=pauses.append)
        with pytest.raises(ResourceError, match=r"answers 503 \(still loading\), 6 times in a row"):
            api.ask(QUESTION, most_tokens=1)
    assert len(served.bodies) == TRIES and pauses == [1, 2, 4, 8, 16]


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = ChatApi(f"http://127.0.0.1:{port}/v1", "m", pause=lambda seconds: None)
    with pytest.raises(ResourceError, match="cannot be reached"):
        api.ask(QUESTION, most_tokens=1)


@pytest.mark.parametrize("status", [400, 401, 404, 302, 307])
def test_a_refusal_is_said_at_once_and_without_the_key(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with serving(lambda body: "never") as other:
        refusal = (status, {"Location": other.url}, b'{"error": "wrong key: sk-secret"}')
        with serving(lambda body: refusal) as served:
            api = ChatApi(served.url, "m", "SOME_KEY")
            with pytest.raises(ConfigError, match=rf"answers {status} \(.*wrong key: …") as caught:
                api.ask(QUESTION, most_tokens=1)
    assert "sk-secret" not in str(caught.value) and len(served.bodies) == 1
    assert not other.bodies, "the key must not follow a redirection"


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"choices": []}', b"[1]", b"\xff"])
def test_another_kind_of_server(content: bytes) -> None:
    other_kind = pytest.raises(ResourceError, match="does not answer as /v1/chat/completions does")
    with serving(lambda body: (200, {}, content)) as served, other_kind:
        ChatApi(served.url, "m").ask(QUESTION, most_tokens=1)


@pytest.mark.parametrize("key", [None, "", "  \n", "a\nb", "ключ"])
def test_no_key_no_request(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(ConfigError, match="the environment variable 'SOME_KEY'"):
        ChatApi("http://localhost:1/v1", "m", "SOME_KEY")
