"""Tables of cases, each named after its rule, and what every refusal must look like."""

import json
from collections.abc import Iterable

import httpx
import pytest


def by_rule(argument: str, section: str, cases: Iterable[str]) -> pytest.MarkDecorator:
    """Parametrises a test with cases of one section of http-api.md: each id begins with the section."""
    return pytest.mark.parametrize(argument, [pytest.param(case, id=f"{section} {case}") for case in cases])


def as_json(value) -> str:
    """JSON as the server writes it: UTF-8, no blanks, keys in their order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def check_json(answer: httpx.Response, status: int, value) -> None:
    """2.2: an answer with this status and exactly this JSON, and all headers that JSON answers have."""
    assert answer.status_code == status
    assert answer.text == as_json(value)
    assert {name: answer.headers.get(name) for name in ("content-type", "content-length", "server", "connection")} == {
        "content-type": "application/json",
        "content-length": str(len(answer.content)),
        "server": "sandstorm",
        "connection": "close",
    }
    assert "date" in answer.headers
