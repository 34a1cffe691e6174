"""Measures Flotilla against bare vLLM and against other servers, on the machine it is called on.

Every arm is a tree of processes of its own, loaded by the same client; nothing is timed inside the process that
reports. May not happen in here: importing Ray or vLLM (but for `metering_engine`, which is what is
measured), rounding in our favour, dropping an arm without its reason.
"""
