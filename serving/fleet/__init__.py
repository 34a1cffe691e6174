"""What a fleet is, as plain values and pure functions.

May not happen in here: Ray, HTTP, Kubernetes, a database, a clock, randomness. `catalogue.load` is the only file read.
"""
