"""A fleet in a model of time: what a policy, a price or a plan would have done to the traffic of a trace.

Discrete events: requests arrive, engine steps end, replicas start, fail and go. Between two such events a step's
composition does not change, so that a run of decode steps is one sum in closed form; the loops are compiled. Policies
(`serving.fleet.autoscaling`), the step model and the books (`serving.fleet.attribution`) are the live ones.

May not happen in here: reading files, asking a clock, drawing a random number that does not come from the seed passed
in, knowing Ray, HTTP, Kubernetes or the ledger.
"""
