"""What open models are before any fleet serves them: their shapes, sizes, catalogue entries, engine arguments.

May not happen in here: knowing a fleet, prices of a running replica, Ray, vLLM, HTTP, a clock. `catalogue.load` reads
the entries and `engineargs` its generated list beside it; nothing else reads files.
"""
