"""The ledger: requests, charges, replicas and keys in a database, and the sums that reports are made of.

May not happen in here: prices decided, HTTP, Ray. SQLite by default, PostgreSQL by URL; no other room knows which.
"""
