"""Flotilla: a fleet of open models behind one OpenAI-compatible API, with a cost per request that adds up to the bill.

Imports inside the package point down only:
cli -> app -> gateway | engines | kubernetes | ledger | simulator -> telemetry -> fleet -> errors. The contract stands
in pyproject.toml (import-linter) and a test keeps it.
"""

__version__ = "0.1.0"
