"""Unit tier: how long the live tests wait on a computer that is slower than the one their seconds are from.

It does NOT prove that the observed pace is enough for a given load: runs with busy loops beside them show that.
"""

from __future__ import annotations

import time

import pytest

from tests.live.harness import ENGINE_START_SECONDS, SLOWEST_PACE, Pace, wait_until

SECONDS = 100


def test_a_wait_is_as_much_longer_as_the_engine_took_to_start() -> None:
    pace = Pace()
    pace.engine_started(3 * ENGINE_START_SECONDS)
    assert not pace.ran_out(time.monotonic() - 2.5 * SECONDS, SECONDS)


def test_a_fast_start_makes_no_wait_shorter_and_the_slowest_one_counts() -> None:
    pace = Pace()
    pace.engine_started(ENGINE_START_SECONDS / 3)
    assert pace.of(SECONDS) == SECONDS
    for times in (4, 2):
        pace.engine_started(times * ENGINE_START_SECONDS)
    assert pace.of(SECONDS) == 4 * SECONDS


@pytest.mark.parametrize("times", [SLOWEST_PACE, 100 * SLOWEST_PACE])
def test_no_wait_is_endless_however_slow_the_computer(times: int) -> None:
    pace = Pace()
    pace.engine_started(times * ENGINE_START_SECONDS)
    assert pace.ran_out(time.monotonic() - SLOWEST_PACE * SECONDS - 1, SECONDS)


def test_a_session_without_an_engine_measures_when_a_wait_has_run_out() -> None:
    pace = Pace()
    pace.ran_out(time.monotonic(), SECONDS)
    assert pace.factor == 1
    pace.measure()
    assert 1 <= pace.factor <= SLOWEST_PACE


def test_what_never_comes_is_named() -> None:
    with pytest.raises(AssertionError, match="a thing"):
        wait_until(lambda: False, "a thing", 0.01)
