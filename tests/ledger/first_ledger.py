"""A ledger as the first Flotilla left it: SQLite, no migrations, replicas instead of sources."""

from __future__ import annotations

import sqlite3
from pathlib import Path

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, prefix TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, revoked_at REAL
);
CREATE TABLE requests (
    request_id TEXT PRIMARY KEY, caller_id TEXT NOT NULL, tenant TEXT NOT NULL, key_id TEXT NOT NULL,
    model TEXT NOT NULL, endpoint TEXT NOT NULL, code INTEGER NOT NULL,
    outcome TEXT NOT NULL, started_at REAL NOT NULL, duration_s REAL NOT NULL,
    stream INTEGER NOT NULL, ttft_s REAL, prompt_tokens INTEGER, cached_tokens INTEGER, completion_tokens INTEGER
);
CREATE INDEX requests_by_time ON requests (started_at);
CREATE TABLE replicas (
    replica_id TEXT PRIMARY KEY, model TEXT NOT NULL, accelerator TEXT NOT NULL, endpoint TEXT NOT NULL,
    price_nanousd_per_hour INTEGER NOT NULL, started_at REAL NOT NULL, seen_at REAL NOT NULL, ready INTEGER NOT NULL,
    ended INTEGER NOT NULL, elapsed_ns INTEGER NOT NULL, cold_ns INTEGER NOT NULL, idle_ns INTEGER NOT NULL,
    busy_ns INTEGER NOT NULL, cold_nanousd INTEGER NOT NULL, idle_nanousd INTEGER NOT NULL,
    folded_steps INTEGER NOT NULL, method TEXT NOT NULL
);
CREATE TABLE charges (
    replica_id TEXT NOT NULL, request_id TEXT NOT NULL, tenant TEXT NOT NULL, outcome TEXT NOT NULL,
    nanousd INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, updated_at REAL NOT NULL, PRIMARY KEY (request_id, replica_id)
);
CREATE INDEX charges_by_replica ON charges (replica_id);
CREATE TABLE totals (
    replica_id TEXT NOT NULL, tenant TEXT NOT NULL, bucket TEXT NOT NULL, nanousd INTEGER NOT NULL,
    requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, PRIMARY KEY (replica_id, tenant, bucket)
);
"""
# r1 has run for an hour and two thirds of a second at $3/h, r2 for a minute at $1/h
HOURS = 3_600_666_666_667
IDLE = 3_000_000_000 * HOURS // 3_600_000_000_000 - 833_333 - 1_000_007 - 600_000 - 70
ROWS = f"""
INSERT INTO meta VALUES ('version', '1');
INSERT INTO keys VALUES ('key_1', 'demo', 'laptop', 'flt_12345678', 'd1', 5.0, NULL);
INSERT INTO keys VALUES ('key_2', 'demo', 'old', 'flt_87654321', 'd2', 4.0, 6.0);
INSERT INTO requests VALUES ('flo-1', 'mine', 'demo', 'key_1', 'qwen', 'chat_completions', 200, 'finished', 100.0, 0.5,
                             1, 0.1, 10, 4, 5);
INSERT INTO requests VALUES ('flo-2', '', 'demo', 'key_1', 'qwen', 'embeddings', 499, 'aborted', 101.0, 0.25, 0, NULL,
                             NULL, NULL, NULL);
INSERT INTO replicas VALUES ('r1', 'qwen', 'core', '127.0.0.1:1', 3000000000, 10.0, 4000.0, 1, 1, {HOURS}, 1000000000,
                             {HOURS - 3_000_000_000}, 2000000000, 833333,
                             {IDLE}, 3, 'old');
INSERT INTO replicas VALUES ('r2', 'llama', 'core', '', 1000000000, 20.0, 80.0, 0, 0, 60000000000, 60000000000, 0, 0,
                             16666666, 0, 0, 'old');
INSERT INTO charges VALUES ('r1', 'flo-1', 'demo', 'finished', 1000007, 10, 4, 5, 101.0);
INSERT INTO charges VALUES ('r1', 'flo-2', 'demo', 'aborted', 600000, 8, 0, 1, 102.0);
INSERT INTO charges VALUES ('r1', 'flo-3', 'shop', 'running', 70, 8, 0, 1, 103.0);
INSERT INTO totals VALUES ('r1', 'demo', 'direct', 1000007, 1, 10, 4, 5);
INSERT INTO totals VALUES ('r1', 'demo', 'waste', 600000, 1, 8, 0, 1);
"""


def make(path: Path) -> None:
    """Write one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.executescript(TABLES + ROWS)
    db.close()


def bill(path: Path) -> tuple[int, int]:
    """(bill, residual) as the first Flotilla reckoned them, nano-USD."""
    with sqlite3.connect(path) as db:
        replicas = db.execute(
            "SELECT price_nanousd_per_hour, elapsed_ns, idle_nanousd + cold_nanousd + COALESCE("
            "(SELECT SUM(nanousd) FROM charges c WHERE c.replica_id = r.replica_id), 0) FROM replicas r").fetchall()
    db.close()
    bills = [price * ns // 3_600_000_000_000 for price, ns, _ in replicas]
    return sum(bills), sum(abs(b - row[2]) for b, row in zip(bills, replicas, strict=True))
