"""The published E2B SDKs against sandboxd over TCP: every step of e2b.md B.9 with each of them."""

import httpx
import pytest
from service import API_KEY
from steps import STEPS

HALVES = ("python-sync", "python-async", "javascript-2.45.0", "javascript-2.51.0")


@pytest.mark.parametrize("half", HALVES)
def test_half_has_every_step(halves, half):
    """A step that one half lacks would otherwise be a step that was never run."""
    assert sorted(halves(half).steps) == sorted(STEPS)


@pytest.mark.parametrize("half", HALVES)
def test_half_is_the_pinned_version(halves, half):
    wanted = half.partition("-")[2] if half.startswith("javascript") else "2.45.0"
    assert halves(half).version == wanted


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("half", HALVES)
def test_step(halves, half, step):
    halves(half).run(step)


def test_no_sandbox_is_left(service, halves):
    """Runs last: the steps end what they make, and what expired or was killed is in no list."""
    answer = httpx.get(f"{service.url}/v2/sandboxes", headers={"X-API-KEY": API_KEY})
    assert (answer.status_code, answer.json()) == (200, [])
