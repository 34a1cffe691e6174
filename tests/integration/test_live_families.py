"""One family through the whole product within the ordinary tests: Llama 3, which the shared fleet serves anyway.

`./tests/families` does the same with every family.
"""

from __future__ import annotations

from collections.abc import Callable

import family_checks
import pytest
from family_cases import case_of
from family_checks import Asked
from live_calls import Caller
from live_fleet import LiveFleet

pytestmark = pytest.mark.integration
CASE = case_of("llama")


@pytest.mark.parametrize("check", CASE.checks)
def test_a_check_holds(check: str, fleet: LiveFleet, callers: Callable[[str], Caller]) -> None:
    assert family_checks.run(Asked(fleet, callers("families"), "llama", CASE), check) == ""
