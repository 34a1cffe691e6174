"""The spool: what is put in comes out once, in order, whatever is killed, torn, damaged or full."""

from __future__ import annotations

import errno
import os
import resource
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spool_rig import reading, request

from serving.errors import LedgerError, SpoolFull
from serving.ledger import frames, spool
from serving.ledger.segments import Entry, encoded
from serving.ledger.spool import Spool

MIB = 1024 * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spools" / "gateway"


def taken(found: Spool, batch: int = 200) -> list[Entry]:
    out: list[Entry] = []
    found.drain(out.extend, batch)
    return out


def reopened(found: Spool) -> Spool:
    found.close()
    return Spool(found.folder, found.limit_bytes)


def test_entries_come_out_whole_and_in_order(folder: Path) -> None:
    entries = [reading(1), request(1, ttft_s=None, tokens=None), reading(2, charges=()), request(2)]
    waiting = Spool(folder, MIB)
    for entry in entries:
        waiting.append(entry)
    assert (waiting.entries, waiting.empty) == (4, False)
    assert taken(waiting) == entries
    assert (waiting.entries, waiting.empty, waiting.size_bytes) == (0, True, 0)


def test_half_a_character_of_a_caller_costs_no_row(folder: Path) -> None:
    waiting = Spool(folder, MIB)
    waiting.append(request(1, caller_id="a\ud800", model="\udfff"))
    assert taken(waiting) == [request(1, caller_id="a?", model="?")]


def test_what_is_appended_while_it_drains_comes_out_too(folder: Path) -> None:
    waiting, out = Spool(folder, MIB), []
    waiting.append(request(1))

    def write(entries: list[Entry]) -> None:
        out.extend(entries)
        if len(out) < 5:
            waiting.append(request(len(out) + 1))

    assert waiting.drain(write) == 5
    assert out == [request(n) for n in range(1, 6)] and waiting.empty


def test_an_entry_stays_until_it_is_written(folder: Path) -> None:
    waiting = Spool(folder, MIB)
    for n in range(5):
        waiting.append(request(n))
    calls: list[list[Entry]] = []

    def fails_second(entries: list[Entry]) -> None:
        calls.append(entries)
        if len(calls) == 2:
            raise LedgerError("away")

    with pytest.raises(LedgerError):
        waiting.drain(fails_second, batch=2)
    assert taken(waiting) == [request(n) for n in (2, 3, 4)]


def test_a_new_process_finds_what_the_last_one_left(folder: Path) -> None:
    waiting = Spool(folder, MIB)
    waiting.append(request(1))
    waiting = reopened(waiting)
    waiting.append(request(2))
    assert (waiting.entries, taken(waiting)) == (2, [request(1), request(2)])


def test_many_segments_are_read_in_order_and_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 1000)
    waiting = Spool(folder, MIB)
    for n in range(40):
        waiting.append(request(n))
    assert len(list(folder.glob("*.seg"))) > 5
    assert waiting.size_bytes == sum(p.stat().st_size for p in folder.glob("*.seg"))
    waiting = reopened(waiting)
    assert taken(waiting, batch=7) == [request(n) for n in range(40)]
    assert not list(folder.glob("*.seg"))


def test_an_entry_larger_than_a_reading_buffer_comes_out(folder: Path) -> None:
    waiting = Spool(folder, 16 * MIB)
    entries = [request(1, caller_id="x" * 5 * MIB), request(2, caller_id="y" * 2 * MIB), request(3)]
    for entry in entries:
        waiting.append(entry)
    assert taken(reopened(waiting)) == entries


@given(cut=st.integers(min_value=0))
def test_a_torn_tail_is_cut_off(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """A process killed while it wrote leaves a part of a frame; nothing else is lost, and the spool goes on."""
    folder = tmp_path_factory.mktemp("torn")
    waiting = Spool(folder, MIB)
    for n in range(3):
        waiting.append(request(n))
    waiting.close()
    part = encoded(request(3))[: cut % len(encoded(request(3)))]
    with next(folder.glob("*.seg")).open("ab") as file:
        file.write(part)
    waiting = Spool(folder, MIB)
    waiting.append(request(4))
    assert taken(waiting) == [request(n) for n in (0, 1, 2, 4)]
    assert waiting.corrupt == 0
    waiting.close()


def test_nothing_but_a_torn_frame_is_an_empty_spool(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "000000000001.seg").write_bytes(encoded(request(1))[:20])
    waiting = Spool(folder, MIB)
    assert waiting.empty and waiting.size_bytes == 0
    waiting.close()
    assert not folder.exists()


@pytest.mark.parametrize("where", [0, 1, 3, 7, 30])  # in the mark, the length, the checksum, the row
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_damaged_entry_costs_itself_only(
    folder: Path, where: int, which: int, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = Spool(folder, MIB)
    for n in range(4):
        waiting.append(request(n))
    waiting.close()
    path = next(folder.glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[which * len(encoded(request(0))) + where] ^= 0xFF
    path.write_bytes(data)
    waiting = Spool(folder, MIB)
    assert taken(waiting, batch=1) == [request(n) for n in range(4) if n != which]
    assert waiting.corrupt == 1 and "damaged" in caplog.text
    assert waiting.empty and waiting.size_bytes == 0


def test_an_entry_of_another_version_is_kept_apart(folder: Path) -> None:
    """It may be read again after the next upgrade; nothing waits for it until then."""
    waiting = Spool(folder, MIB)
    waiting.append(request(1))
    waiting.close()
    with next(folder.glob("*.seg")).open("ab") as file:
        file.write(frames.framed(b"z" + b"\x01"))
    waiting = Spool(folder, MIB)
    waiting.append(request(2))
    assert taken(waiting) == [request(1), request(2)]
    assert waiting.empty and waiting.refused and waiting.size_bytes > 0
    waiting = reopened(waiting)
    assert waiting.refused
    waiting.again()
    assert waiting.entries == 1 and not waiting.refused
    assert taken(waiting) == [] and waiting.refused


def test_what_was_refused_waits_again_when_asked(folder: Path) -> None:
    waiting = Spool(folder, MIB)
    for n in range(3):
        waiting.append(request(n))
    waiting.peek(1)
    assert waiting.second() == request(1)
    waiting.set_aside(LedgerError("no"))
    size = waiting.size_bytes
    assert taken(waiting) == [request(1), request(2)] and waiting.refused
    waiting.append(request(3))
    waiting.again()
    assert sorted(e.request_id for e in taken(waiting)) == ["flo-0", "flo-3"]
    assert waiting.size_bytes == 0 < size and not waiting.refused


def test_the_bound_holds_and_room_comes_back(folder: Path) -> None:
    one = len(encoded(request(10)))
    waiting = Spool(folder, 10 * one)
    for n in range(10, 20):
        assert not waiting.full
        waiting.append(request(n))
    assert waiting.full
    with pytest.raises(SpoolFull, match="the spool is full, .* ledger.spool_mib"):
        waiting.append(request(20))
    waiting.append(request(21), reserve_bytes=one)
    with pytest.raises(SpoolFull):
        waiting.append(request(22), reserve_bytes=one)
    assert waiting.size_bytes == 11 * one == sum(p.stat().st_size for p in folder.iterdir())
    assert taken(waiting) == [request(n) for n in (*range(10, 20), 21)]
    assert not waiting.full
    waiting.append(request(23))


def test_a_full_disk_counts_as_full_and_leaves_no_half_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Spool(folder, MIB)
    waiting.append(request(1))
    size, write = waiting.size_bytes, os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(SpoolFull, match="the disk takes nothing: 10 of"):
        waiting.append(request(2))

    def no_space(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", no_space)
    with pytest.raises(SpoolFull, match="No space left"):
        waiting.append(request(3))
    assert waiting.full and waiting.disk_failed
    monkeypatch.undo()
    assert waiting.size_bytes == size == next(folder.glob("*.seg")).stat().st_size
    waiting.probe()
    assert not waiting.full
    waiting.append(request(4))
    assert taken(waiting) == [request(1), request(4)]


def test_a_disk_that_is_full_from_the_start_leaves_an_empty_spool(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Spool(folder, MIB)
    monkeypatch.setattr(os, "write", lambda file, data: 0)
    with pytest.raises(SpoolFull):
        waiting.append(request(1))
    monkeypatch.undo()
    assert waiting.empty and waiting.size_bytes == 0 and not list(folder.glob("*.seg"))


def test_a_real_disk_limit_leaves_whole_entries_only(folder: Path) -> None:
    waiting = Spool(folder, MIB)
    waiting.append(request(1))
    size, before = waiting.size_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))  # the kernel takes ten bytes, and then none
    try:
        for n in range(2):
            with pytest.raises(SpoolFull, match="the disk takes nothing"):
                waiting.append(request(2 + n))
        waiting.probe()
        assert waiting.full
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    waiting.append(request(4))
    assert not waiting.full and taken(reopened(waiting)) == [request(1), request(4)]


def test_a_folder_has_one_owner(folder: Path) -> None:
    first = Spool(folder, MIB)
    with pytest.raises(LedgerError, match="another process"):
        Spool(folder, MIB)
    assert Spool.left(folder) is None
    first.append(request(1))
    first.close()
    second = Spool.left(folder)
    assert second is not None and second.entries == 1
    with pytest.raises(LedgerError, match="another process"):
        Spool(folder, MIB)
    with pytest.raises(LedgerError, match="closed"):
        first.append(request(2))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="no spool can be kept there"):
        Spool(tmp_path / "file" / "spool", MIB)


def test_an_empty_spool_leaves_no_folder(folder: Path) -> None:
    waiting = Spool(folder, MIB)
    waiting.append(request(1))
    taken(waiting)
    waiting.close()
    assert not folder.exists()
    assert Spool.left(folder) is None


def test_memory_stays_flat(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", MIB)
    waiting = Spool(folder, 64 * MIB)
    entry = reading(1, charges=range(4))
    for _ in range(100):
        waiting.append(entry)
    tracemalloc.start()
    try:
        for _ in range(5_000):
            waiting.append(entry)
        assert tracemalloc.get_traced_memory()[1] < MIB // 4
        tracemalloc.reset_peak()
        count = [0]
        waiting.drain(lambda entries: count.__setitem__(0, count[0] + len(entries)))
        assert count == [5_100]
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
