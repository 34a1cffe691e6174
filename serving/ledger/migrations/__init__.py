"""How an older ledger becomes a newer one: one module per step in `versions`, run by Alembic when a ledger is opened.

A step never imports the tables of `schema`: it says what they were at its time. Every step must keep all money.
"""
