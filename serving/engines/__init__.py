"""vLLM under Ray Serve: the engine configuration, the metered scheduler and the replica's own HTTP endpoint.

May not happen in here: tenants' keys, budgets, the public API. Everything that leans on Ray's or vLLM's inner parts is
in this package, behind `ReplicaDirectory` and `deployment`, and a contract test fails loudly when they change.
"""
