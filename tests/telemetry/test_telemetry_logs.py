"""Lines of the log: for people and for programs, about whom, and never many of the same."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.fleet.observing import LogSpec
from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry import logs
from serving.telemetry.access import AccessLog

ABOUT = {"request_id": "flo-1", "tenant": "shop", "model": "qwen"}
RECORD = RequestRecord("flo-1", "their-1", "shop", "key_1", "qwen", "chat_completions", 200, "finished",
                       1_700_000_000.25, 0.9, True, 0.2, Tokens(9, 4, 3), preset="helper@1")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, left as it was."""
    found = logging.getLogger()
    handlers, level = found.handlers[:], found.level
    yield found
    found.handlers[:], found.level = handlers, level


def written(spec: LogSpec, say) -> str:
    out = io.StringIO()
    logs.configure(spec, "gateway", out)
    say(logging.getLogger("some.place"))
    return out.getvalue()


def test_a_line_for_programs_says_whom_it_is_about(root: logging.Logger) -> None:
    text = written(LogSpec(form="json"), lambda log: log.warning("%s: gone\nfake line", "Replica", extra=ABOUT))
    line, = text.splitlines()
    found = json.loads(line)
    assert found.pop("at").endswith("Z")
    assert found == {"level": "warning", "process": "gateway", "logger": "some.place",
                     "message": "Replica: gone\nfake line", **ABOUT}


def test_a_line_for_people_stays_one_line(root: logging.Logger) -> None:
    text = written(LogSpec(), lambda log: log.warning("gone\nfake line", extra=ABOUT))
    line, = text.splitlines()
    assert line.endswith("warning gateway some.place: gone\\nfake line [flo-1 shop qwen]")


def test_a_traceback_is_kept(root: logging.Logger) -> None:
    def fail(log: logging.Logger) -> None:
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            log.exception("a request failed", extra=ABOUT)

    assert "RuntimeError: broken" in json.loads(written(LogSpec(form="json"), fail))["error"]
    assert written(LogSpec(), fail).splitlines()[-1] == "RuntimeError: broken"


@pytest.mark.parametrize(("level", "seen"), [("warning", False), ("info", True)])
def test_the_level_is_the_least_that_is_written(root: logging.Logger, level: str, seen: bool) -> None:
    assert bool(written(LogSpec(level=level), lambda log: log.info("hello"))) == seen


def test_many_of_one_kind_are_counted_and_others_pass() -> None:
    now = [0.0]
    limit = logs.Limit(3, lambda: now[0])

    def line(text: str, *args: object) -> logging.LogRecord:
        return logging.LogRecord("x", logging.WARNING, "", 0, text, args, None)

    assert [limit.filter(line("gone: %s", n)) for n in range(5)] == [True] * 3 + [False] * 2
    assert limit.filter(line("another"))
    now[0] = 10.0
    again = line("gone: %s", 9)
    assert limit.filter(again) and again.left_out == 2
    assert "2 more of this kind" in logs.Human("gateway").format(again)
    for n in range(5000):
        limit.filter(line(f"kind {n}"))
    assert len(limit._seen) <= 1000


def lines(spec: LogSpec, folder: Path, count: int = 1) -> list[str]:
    made = AccessLog(spec, folder, 7, lambda: 5.0)
    for _ in range(count):
        made.put(RECORD, 0.000123, "ab" * 16)
    made.close()
    return made.file.read_text().splitlines()


def test_the_access_log_says_who_what_how_long_and_what_it_cost(tmp_path: Path) -> None:
    line, = lines(LogSpec(), tmp_path)
    assert line == ("2023-11-14T22:13:20.250Z 200 finished shop chat_completions qwen as helper@1 0.900s first 0.200s "
                    f"9+3 tokens $0.000123000 flo-1 trace {'ab' * 16}")
    line, = lines(LogSpec(form="json"), tmp_path / "json")
    assert json.loads(line) == {
        "at": "2023-11-14T22:13:20.250Z", "request_id": "flo-1", "caller_id": "their-1", "trace_id": "ab" * 16,
        "tenant": "shop", "key_id": "key_1", "endpoint": "chat_completions", "model": "qwen", "preset": "helper@1",
        "code": 200, "outcome": "finished", "stream": True, "duration_s": 0.9, "ttft_s": 0.2, "prompt_tokens": 9,
        "cached_tokens": 4, "completion_tokens": 3, "cost_usd": 0.000123}


def test_what_is_too_much_is_counted_in_the_log_itself(tmp_path: Path) -> None:
    found = lines(LogSpec(form="json", access_per_s=5), tmp_path, 12)
    assert len(found) == 6
    assert json.loads(found[-1])["left_out"] == 7


def test_older_lines_make_room(tmp_path: Path) -> None:
    spec = LogSpec(access_mib=1, access_per_s=100_000)
    made = AccessLog(spec, tmp_path, 7, lambda: 5.0)
    for _ in range(8):
        for _ in range(1500):
            made.put(RECORD, 0.000123, "")
        made._flush()
    made.close()
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 4 and sum(sizes) < 1.3 * 2**20
