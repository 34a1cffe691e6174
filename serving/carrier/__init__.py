"""The carrier: many requests over one connection between a gateway and a replica.

What every engine step gives to all its streams travels in one write, instead of one per stream. May not happen in
here: anything about models, keys, cost, or what the bytes mean.
"""
