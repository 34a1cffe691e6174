"""Load tests of a mix of models behind one OpenAI-compatible endpoint.

The load is open loop: the whole schedule of arrivals follows from a scenario and a seed, and a request leaves
when it is due whatever became of the earlier ones. Locust gives the process, its statistics and its signals;
the schedule, the client, the records and the report are ours.

Nothing in here may import the serving side: Locust patches the standard library for gevent, and a load test
that shares code with what it measures measures itself.
"""
