"""Whole or absent: publication under interruption, failure and competition. Builders here are trivial."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from serving.checkpoints import store
from serving.checkpoints.store import publish, sweep

# Publishes root/fam-1 with two files, and halts between them.
HALF = """
import sys
from pathlib import Path
from serving.checkpoints.store import publish
def build(folder):
    (folder / "first").write_text("1")
    print("halted", flush=True)
    sys.stdin.readline()
    (folder / "second").write_text("2")
publish(Path(sys.argv[1]) / "fam-1", "fam", build)
"""


def whole(folder: Path) -> None:
    (folder / "first").write_text("1")
    (folder / "second").write_text("2")


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def scratch(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob(".*.building"))


def kill(child: Popen[str]) -> None:
    """As the kernel would for want of memory: no handlers, no clean-up."""
    child.kill()
    child.wait(30)


def go_on(child: Popen[str]) -> None:
    child.stdin.write("\n")
    child.stdin.flush()


def test_a_killed_build_leaves_nothing_visible_and_the_next_one_succeeds(
    tmp_path: Path, halted: Callable[..., Popen[str]]
) -> None:
    child = halted(HALF, tmp_path)
    assert (scratch(tmp_path), visible(tmp_path)) == ([".fam.building"], [])
    kill(child)
    assert visible(tmp_path) == []

    made = publish(tmp_path / "fam-1", "fam", whole)

    assert sorted(path.name for path in made.iterdir()) == ["first", "second"]
    assert scratch(tmp_path) == []


def test_a_maker_that_waited_for_a_build_that_died_starts_afresh(
    tmp_path: Path, halted: Callable[..., Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = halted(HALF, tmp_path)
    past_sweeping = threading.Event()

    def sweep_and_tell(root: Path) -> tuple[Path, ...]:
        swept = sweep(root)
        past_sweeping.set()
        return swept

    def build(folder: Path) -> None:
        (folder / "second").write_text("2")

    monkeypatch.setattr(store, "sweep", sweep_and_tell)
    second = threading.Thread(target=publish, args=(tmp_path / "fam-1", "fam", build))
    second.start()
    assert past_sweeping.wait(30)
    kill(first)
    second.join(30)
    assert [path.name for path in (tmp_path / "fam-1").iterdir()] == ["second"]


def test_a_dead_build_is_swept_when_another_family_is_made(tmp_path: Path, halted: Callable[..., Popen[str]]) -> None:
    kill(halted(HALF, tmp_path))
    assert scratch(tmp_path) == [".fam.building"]

    publish(tmp_path / "other-1", "other", whole)

    assert (scratch(tmp_path), visible(tmp_path)) == ([], ["other-1"])


def test_a_living_build_is_not_swept_and_completes(tmp_path: Path, halted: Callable[..., Popen[str]]) -> None:
    child = halted(HALF, tmp_path)
    assert sweep(tmp_path) == ()
    publish(tmp_path / "other-1", "other", whole)
    assert (tmp_path / ".fam.building" / "first").exists()
    go_on(child)
    assert child.wait(30) == 0
    assert visible(tmp_path) == ["fam-1", "other-1"]
    assert (tmp_path / "fam-1" / "second").read_text() == "2"


def test_a_later_maker_waits_for_the_first_and_does_not_build_again(
    tmp_path: Path, halted: Callable[..., Popen[str]], start: Callable[..., Popen[str]]
) -> None:
    first = halted(HALF, tmp_path)
    second = start(HALF, tmp_path)
    go_on(first)
    said, _ = second.communicate(timeout=30)
    assert first.wait(30) == 0
    # A second build would have said that it halted.
    assert (second.returncode, said) == (0, "")
    assert visible(tmp_path) == ["fam-1"]


def test_threads_build_once(tmp_path: Path) -> None:
    builds: list[Path] = []
    together = threading.Barrier(6)

    def build(folder: Path) -> None:
        builds.append(folder)
        whole(folder)

    def make() -> None:
        together.wait(10)
        publish(tmp_path / "fam-1", "fam", build)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(builds) == 1
    assert visible(tmp_path) == ["fam-1"]


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_a_failed_build_raises_and_leaves_no_folder(tmp_path: Path, error: BaseException) -> None:
    def build(folder: Path) -> None:
        (folder / "first").write_text("1")
        raise error

    with pytest.raises(type(error)):
        publish(tmp_path / "fam-1", "fam", build)
    assert visible(tmp_path) == [] and scratch(tmp_path) == []


def test_an_existing_target_is_returned_untouched(tmp_path: Path) -> None:
    (tmp_path / "fam-1").mkdir()

    def build(folder: Path) -> None:
        raise AssertionError("built again")

    assert publish(tmp_path / "fam-1", "fam", build) == tmp_path / "fam-1"
    assert [path.name for path in tmp_path.iterdir()] == ["fam-1"]
