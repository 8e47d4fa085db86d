"""Three minutes of the soak: random runs while workers die, reload and are upgraded, clients vanish and the service fails."""

import os
import random

import pytest
from harness.running import running_double, running_servers
from harness.waiting import SLOW
from soak import Options, soak

MINUTES = 3
CLIENTS = 12


@pytest.mark.timeout(900 * SLOW)
async def test_three_minutes_of_chaos_lose_and_leak_nothing(tmp_path):
    """SOAK_SEED: the choices of an earlier one."""
    seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
    with running_double() as double, running_servers(double, tmp_path) as start:
        await soak(Options(MINUTES, seed, CLIENTS), double, start, tmp_path)
