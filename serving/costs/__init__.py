"""What the ledger's rows mean: why a request cost what it did, when open models pay, and files for those who audit.

May not happen in here: a database, Ray, HTTP, a clock, randomness. Rows come in, values and text go out; `files` is the
only module that writes.
"""
