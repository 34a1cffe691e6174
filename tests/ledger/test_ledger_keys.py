"""Keys: shown once, kept as hashes, revoked within a moment."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from ledger_samples import PEPPER, alter

from serving.errors import ConfigError, InvalidKey, KeysUnavailable
from serving.fleet.tenants import SHOWN
from serving.ledger import keys
from serving.ledger.live import LedgerKeyring
from serving.ledger.store import Ledger


def create(ledger: Ledger, name: str = "laptop", tenant: str = "demo", now: float = 1.0) -> str:
    return keys.create(ledger, tenant, name, PEPPER, now)[0]


def test_a_key_is_listed_and_its_text_is_nowhere(sqlite_ledger: Ledger) -> None:
    ledger = sqlite_ledger
    text = create(ledger)
    (found,) = keys.all_keys(ledger)
    assert (found.tenant, found.name, found.prefix, found.usable) == ("demo", "laptop", text[:SHOWN], True)
    with sqlite3.connect(ledger.name) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = b"".join(path.read_bytes() for path in Path(ledger.name).parent.iterdir())
    assert found.digest.encode() in kept, "the bytes that were read are not those of the ledger"
    assert text.encode() not in kept
    assert text[SHOWN:].encode() not in kept
    assert bytes.fromhex(text.removeprefix("flt_")) not in kept
    assert PEPPER not in kept


def test_no_two_keys_are_alike(ledger: Ledger) -> None:
    assert len({create(ledger, f"n{n}") for n in range(20)}) == 20
    assert len({k.digest for k in keys.all_keys(ledger)}) == 20


def test_keys_are_listed_oldest_first(ledger: Ledger) -> None:
    for name, now in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        create(ledger, name, now=now)
    assert [k.name for k in keys.all_keys(ledger)] == ["a", "b", "c"]


@pytest.mark.parametrize("by", ["key_id", "prefix", "name"])
def test_a_key_is_revoked_by_what_lists_show(ledger: Ledger, by: str) -> None:
    create(ledger, "one")
    create(ledger, "two", now=2.0)
    revoked = keys.revoke(ledger, getattr(keys.all_keys(ledger)[0], by), 5.0)
    assert revoked.name == "one"
    assert [(k.name, k.revoked_at) for k in keys.all_keys(ledger)] == [("one", 5.0), ("two", None)]


def test_revoking_what_is_not_clear_is_refused(ledger: Ledger) -> None:
    create(ledger)
    create(ledger, now=2.0)
    with pytest.raises(ConfigError, match="2 keys match 'laptop'"):
        keys.revoke(ledger, "laptop", 5.0)
    with pytest.raises(ConfigError, match="no usable key matches 'other'"):
        keys.revoke(ledger, "other", 5.0)
    first = keys.all_keys(ledger)[0].key_id
    keys.revoke(ledger, first, 5.0)
    with pytest.raises(ConfigError, match="no usable key"):
        keys.revoke(ledger, first, 6.0)
    assert keys.revoke(ledger, "laptop", 7.0).created_at == 2.0  # the other one is the only usable now


async def test_a_key_opens_for_its_tenant(ledger: Ledger) -> None:
    text = create(ledger, tenant="search")
    who = await LedgerKeyring(ledger, PEPPER).principal(text)
    assert (who.tenant, who.key_id) == ("search", keys.all_keys(ledger)[0].key_id)


@pytest.mark.parametrize("wrong", ["", "flt_", "flt_" + "0" * 48, "\u00ff"])
async def test_a_key_that_is_none(ledger: Ledger, wrong: str) -> None:
    create(ledger)
    with pytest.raises(InvalidKey, match="not known"):
        await LedgerKeyring(ledger, PEPPER).principal(wrong)


async def test_the_stored_hash_is_no_key(ledger: Ledger) -> None:
    create(ledger)
    with pytest.raises(InvalidKey):
        await LedgerKeyring(ledger, PEPPER).principal(keys.all_keys(ledger)[0].digest)


async def test_another_pepper_opens_nothing(ledger: Ledger) -> None:
    text = create(ledger)
    with pytest.raises(InvalidKey):
        await LedgerKeyring(ledger, b"other").principal(text)


async def test_a_revoked_key_closes_within_the_age(ledger: Ledger) -> None:
    text = create(ledger)
    keyring = LedgerKeyring(ledger, PEPPER, max_age_s=0.05)
    await keyring.principal(text)
    keys.revoke(ledger, "laptop", 5.0)
    async with asyncio.timeout(2):
        with pytest.raises(InvalidKey, match="has been revoked"):
            while True:
                await keyring.principal(text)
                await asyncio.sleep(0.01)


async def test_within_the_age_the_ledger_is_not_asked(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, reads = create(ledger), []
    read = keys.all_keys
    monkeypatch.setattr(keys, "all_keys", lambda found: reads.append(1) or read(found))
    keyring = LedgerKeyring(ledger, PEPPER, max_age_s=60, miss_age_s=0.2)
    await asyncio.gather(*(keyring.principal(text) for _ in range(20)))
    assert len(reads) == 1
    guesses = await asyncio.gather(*(keyring.principal(f"guess-{n}") for n in range(20)), return_exceptions=True)
    assert {type(g) for g in guesses} == {InvalidKey}
    assert len(reads) == 2, "twenty guesses at once cost one reading"


async def test_a_new_key_opens_with_its_first_request(ledger: Ledger) -> None:
    """However short ago the gateway has read the keys: the request waits until they may be read again."""
    keyring = LedgerKeyring(ledger, PEPPER, max_age_s=60, miss_age_s=0.2)
    await keyring.principal(create(ledger, "old", "other"))
    assert (await keyring.principal(create(ledger))).tenant == "demo"


async def test_a_new_key_opens_before_the_age_is_over(ledger: Ledger) -> None:
    create(ledger)
    keyring = LedgerKeyring(ledger, PEPPER, max_age_s=3600, miss_age_s=0.0)
    with pytest.raises(InvalidKey):
        await keyring.principal("flt_none")
    assert (await keyring.principal(create(ledger, "new", "other"))).tenant == "other"


async def test_known_keys_stay_good_while_the_ledger_is_away(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    text = create(ledger)
    keyring = LedgerKeyring(ledger, PEPPER, max_age_s=0.0)
    await keyring.principal(text)
    alter(ledger, "ALTER TABLE keys RENAME TO away")
    assert (await keyring.principal(text)).tenant == "demo"
    assert "stay in use" in caplog.text


async def test_many_callers_at_once_are_known_while_readings_follow_each_other(sqlite_ledger: Ledger) -> None:
    text = create(sqlite_ledger)
    keyring = LedgerKeyring(sqlite_ledger, PEPPER, max_age_s=0.0, miss_age_s=0.0)

    async def often() -> set[str]:
        return {(await keyring.principal(text)).tenant for _ in range(5)}

    assert await asyncio.gather(*(often() for _ in range(40))) == [{"demo"}] * 40


async def test_keys_that_were_never_readable_are_not_called_wrong(ledger: Ledger) -> None:
    """A good key must not be told that it is bad because the ledger is away."""
    text = create(ledger)
    alter(ledger, "ALTER TABLE keys RENAME TO away")
    keyring = LedgerKeyring(ledger, PEPPER)
    with pytest.raises(KeysUnavailable):
        await keyring.principal(text)
    alter(ledger, "ALTER TABLE away RENAME TO keys")
    assert (await keyring.principal(text)).tenant == "demo"
