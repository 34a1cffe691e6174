"""Where limits are counted when there are several gateways: one book for all of them, and the desk that asks it.

`server` holds the book of one machine behind a Unix socket, `redis` keeps it in Redis or Valkey by one atomic script;
`desk` is what a gateway talks to. May not happen in here: what a limit means (`fleet.quotas`, `fleet.limits`), HTTP, a
ledger's database.
"""
