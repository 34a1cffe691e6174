"""The definition card: what the figures mean here, and what the same words mean in other tools.

Read from the sources of vLLM 0.29 (`vllm bench serve`) and guidellm 0.8.1, and from AIPerf's metrics reference; a
tool's own documentation decides where its version differs. A dash: not computed there.
"""

from loadtests.report.model import Definition

_NONE = "–"


def _own(term: str, here: str) -> Definition:
    return Definition(term=term, here=here, vllm=_NONE, aiperf=_NONE, guidellm=_NONE)


DEFINITIONS = (
    Definition(
        term="TTFT",
        here="First chunk with content or reasoning text − sent. The empty role chunk does not count. "
        "Streamed requests only; also from the time at which the request was due.",
        vllm="First chunk that has choices, the role chunk included, − sent.",
        aiperf="As here; to the first token that is not reasoning it is called TTFO.",
        guidellm="As here; to the first token that is not reasoning it is called TTFOT.",
    ),
    Definition(
        term="TPOT",
        here="(end to end − TTFT) / (n − 1) per request; n is the server's completion_tokens.",
        vllm="The same formula per request, with its own TTFT and end.",
        aiperf="The same formula, called inter-token latency (ITL); it counts n with a tokenizer of its own.",
        guidellm="(last token − sent) / n, the mean weighted by n: the first token's wait is in it. Its ITL is our "
        "TPOT, weighted by n − 1.",
    ),
    Definition(
        term="Gap between chunks",
        here="Time between two content chunks, all gaps of all streams together. One chunk may carry several "
        "tokens, so it is no token latency.",
        vllm="Called ITL; the gaps after the role chunk and before the last one are in it.",
        aiperf="Called inter-chunk latency (ICL), apart from ITL.",
        guidellm=_NONE,
    ),
    Definition(
        term="End to end",
        here="Sent to the last content chunk; usage chunk and [DONE] do not count. Not streamed: to the whole answer.",
        vllm="Sent to the last chunk, the usage chunk included.",
        aiperf="As here (request latency).",
        guidellm="Sent to the end of the stream.",
    ),
    Definition(
        term="Goodput",
        here="Requests that meet every objective / length of the measured window; errors are misses. Not "
        "streamed: whole answer within TTFT + (n − 1) · TPOT objectives.",
        vllm="Successful requests within every given limit / duration; one token counts as TPOT 0.",
        aiperf="Requests within every given limit / duration.",
        guidellm="Requests within every given limit / duration, TPOT by its ITL; errors lower the share.",
    ),
    Definition(
        term="Requests and output tokens per second",
        here="Requests due in the measured window, tokens delivered inside it, / its length; a stream's tokens are "
        "spread evenly over its time.",
        vllm="All successes and their tokens / time until the last request ends.",
        aiperf="All successes and their tokens / (last content − first request).",
        guidellm="As distributions over time; their means are near all successes / duration.",
    ),
    Definition(
        term="Percentiles and intervals",
        here="Exact, from all raw values, linear interpolation between neighbours. 95% intervals by order statistics; "
        "shares by Clopper–Pearson; rates by Student's t over about 24 blocks of time. Requests that wait in one queue "
        "are slow together: they count as fewer, by their autocorrelation in the order of sending. They hold for this "
        "fleet as it was started, not for the next start.",
        vllm="numpy, linear interpolation; no intervals.",
        aiperf="No intervals for one run.",
        guidellm="Intervals by order statistics, requests taken as independent.",
    ),
    _own(
        "Surely met",
        "The lower end of the share's 95% interval is at or above the goal; surely missed: its upper end is below. The "
        "verdict goes by the share itself and says when it is not certain.",
    ),
    _own(
        "Cost per request",
        "Fully loaded: all the ledger metered for the model from start to end of the run (direct, "
        "waste, idle, cold start, overhead) / successful requests of the whole run, warm-up included. Per good "
        "request: the same cost / requests of the whole run that met every objective. Per million tokens: the same "
        "cost / (prompt + completion tokens). Charged: mean of the responses' usage.cost.",
    ),
    _own(
        "Same traffic at API prices",
        "Tokens of the successful requests × the API's prices per token of ours (its own tokenizer's count, "
        "as the fleet file's token ratio says, and batch prices are in them); input that was cached here is taken as "
        "cached there. Saving: 1 − fully loaded cost / that.",
    ),
    _own(
        "Break-even utilisation",
        "u* = P · k / (3600 · μ · c): P a replica's price per hour, k the bill over the replicas' bill, μ requests a "
        "second of a full replica by the fitted step model, c what the run's mean request costs at the API. Break-even "
        "traffic: cost here / cost there, if the fleet stays as it is.",
    ),
)
