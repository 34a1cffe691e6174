"""Adapters in the ledger: one of a name at a time, kept over restarts, followed by gateways while it is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from ledger_samples import alter

from serving.errors import AdapterRefused
from serving.fleet.adapters import Adapter, shown
from serving.ledger import adapters
from serving.ledger.adapters import FollowedAdapters
from serving.ledger.store import Ledger

PIRATE = Adapter("lora_1", "qwen", "pirate", "org/pirate", "/a/pirate", 8, "says arr", None, 1.0)
POET = replace(PIRATE, adapter_id="lora_2", name="poet", tenants=("shop", "search"), added_at=2.0)
OTHER = replace(PIRATE, adapter_id="lora_3", model="llama", tenants=(), added_at=3.0)


def test_they_are_there_until_they_are_removed(ledger: Ledger) -> None:
    for adapter in (OTHER, POET, PIRATE):
        adapters.put(ledger, adapter, False)
    assert adapters.present(ledger) == [PIRATE, POET, OTHER]
    assert adapters.remove(ledger, "qwen", "pirate", 9.0) == replace(PIRATE, removed_at=9.0)
    assert adapters.remove(ledger, "qwen", "pirate", 9.5) is None
    assert adapters.present(ledger) == [POET, OTHER]
    assert [a.removed_at for a in adapters.every(ledger)] == [9.0, None, None]


def test_a_name_is_anothers_only_by_replacing_it(ledger: Ledger) -> None:
    adapters.put(ledger, PIRATE, False)
    newer = replace(PIRATE, adapter_id="lora_9", source="org/newer", added_at=5.0)
    with pytest.raises(AdapterRefused, match="qwen:pirate is there already"):
        adapters.put(ledger, newer, False)
    assert adapters.present(ledger) == [PIRATE]
    adapters.put(ledger, newer, True)
    assert adapters.present(ledger) == [newer]
    assert newer.engine_name != PIRATE.engine_name, "nothing that an engine keeps for one is taken for the other"
    assert shown(newer.engine_name) == shown(PIRATE.engine_name) == shown("qwen:pirate") == "qwen:pirate"


async def follow(ledger: Ledger) -> FollowedAdapters:
    followed = FollowedAdapters(ledger, 0.02)
    await followed.start()
    return followed


async def until(check) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.01)


async def test_gateways_follow_and_know_them_from_the_start(ledger: Ledger) -> None:
    adapters.put(ledger, PIRATE, False)
    followed = await follow(ledger)
    assert followed.found == (PIRATE,)
    before = followed.found
    await asyncio.sleep(0.1)
    assert followed.found is before, "the same object until they change"
    adapters.put(ledger, POET, False)
    await until(lambda: followed.found == (PIRATE, POET))
    adapters.remove(ledger, "qwen", "pirate", 9.0)
    await until(lambda: followed.found == (POET,))
    followed.close()


async def test_known_ones_stay_while_the_ledger_is_away(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    adapters.put(ledger, PIRATE, False)
    followed = await follow(ledger)
    alter(ledger, "ALTER TABLE adapters RENAME TO away")
    await until(lambda: "those known stay" in caplog.text)
    assert followed.found == (PIRATE,)
    alter(ledger, "ALTER TABLE away RENAME TO adapters")
    adapters.put(ledger, POET, False)
    await until(lambda: followed.found == (PIRATE, POET))
    followed.close()
