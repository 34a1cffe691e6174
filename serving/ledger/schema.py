"""The ledger's tables, as SQL. One statement each; `VERSION` rises with every change."""

VERSION = 1

TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS keys (
    key_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, prefix TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, revoked_at REAL
);
CREATE TABLE IF NOT EXISTS requests (
    request_id TEXT PRIMARY KEY, caller_id TEXT NOT NULL, tenant TEXT NOT NULL, key_id TEXT NOT NULL,
    model TEXT NOT NULL, endpoint TEXT NOT NULL, code INTEGER NOT NULL,
    outcome TEXT NOT NULL, started_at REAL NOT NULL, duration_s REAL NOT NULL,
    stream INTEGER NOT NULL, ttft_s REAL, prompt_tokens INTEGER, cached_tokens INTEGER, completion_tokens INTEGER
);
CREATE INDEX IF NOT EXISTS requests_by_time ON requests (started_at);
CREATE TABLE IF NOT EXISTS replicas (
    replica_id TEXT PRIMARY KEY, model TEXT NOT NULL, accelerator TEXT NOT NULL, endpoint TEXT NOT NULL,
    price_nanousd_per_hour INTEGER NOT NULL, started_at REAL NOT NULL, seen_at REAL NOT NULL, ready INTEGER NOT NULL,
    ended INTEGER NOT NULL, elapsed_ns INTEGER NOT NULL, cold_ns INTEGER NOT NULL, idle_ns INTEGER NOT NULL,
    busy_ns INTEGER NOT NULL, cold_nanousd INTEGER NOT NULL, idle_nanousd INTEGER NOT NULL,
    folded_steps INTEGER NOT NULL, method TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS charges (
    replica_id TEXT NOT NULL, request_id TEXT NOT NULL, tenant TEXT NOT NULL, outcome TEXT NOT NULL,
    nanousd INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, updated_at REAL NOT NULL, PRIMARY KEY (request_id, replica_id)
);
CREATE INDEX IF NOT EXISTS charges_by_replica ON charges (replica_id);
CREATE TABLE IF NOT EXISTS totals (
    replica_id TEXT NOT NULL, tenant TEXT NOT NULL, bucket TEXT NOT NULL, nanousd INTEGER NOT NULL,
    requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, PRIMARY KEY (replica_id, tenant, bucket)
);
"""
