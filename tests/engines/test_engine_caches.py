"""What engines compile is kept in the state directory, and what a killed compiler left there hinders no later one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from serving import launch
from serving.engines import caches
from serving.plan import Changes, Plan

NOW = 1_000_000.0


def left(path: Path, content: bytes, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (NOW - age_s, NOW - age_s))
    return path


def test_old_empty_code_goes_and_all_else_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = caches.environment(tmp_path, {})
    inductor, vllm = (Path(folders[name]) for name in ("TORCHINDUCTOR_CACHE_DIR", "VLLM_CACHE_ROOT"))
    broken = [left(inductor / "a5/ca5.main.so", b"", 31), left(vllm / "torch_compile_cache/1/inductor/x.so", b"", 900)]
    stays = [left(inductor / "a5/ca6.main.so", b"", 29), left(inductor / "a5/ca7.main.so", b"\x7fELF", 900),
             left(inductor / "locks/ca5.lock", b"", 900), left(vllm / "modelinfos/a.json", b"{}", 900)]
    with caplog.at_level(logging.WARNING):
        assert sorted(caches.mend(folders, NOW)) == sorted(broken)
    assert not any(path.exists() for path in broken) and all(path.exists() for path in stays)
    assert "removed 2 empty files" in caplog.text
    assert caches.mend(folders, NOW) == []


def test_folders_that_are_not_there_or_not_named_are_no_matter(tmp_path: Path) -> None:
    assert caches.mend({}) == [] and caches.mend(caches.environment(tmp_path / "none", {})) == []


def test_a_run_keeps_them_in_its_state_directory_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                     ) -> None:
    for name in caches.FOLDERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    plan = Plan("1", str(tmp_path), str(tmp_path / "work"), "fleet.yaml", "sample", "", "", Changes({}))
    found = launch.environment(plan)
    assert {name: found[name] for name in caches.FOLDERS} == {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache/inductor"), "TRITON_CACHE_DIR": "/elsewhere",
        "VLLM_CACHE_ROOT": str(tmp_path / "cache/vllm")}
