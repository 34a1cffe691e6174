"""The definition card: what the figures mean here, and what the same words mean in other tools.

Read from the sources of vLLM 0.29 (`vllm bench serve`), AIPerf's metrics reference and guidellm; a tool's own
documentation decides where its version differs. A dash: not computed there, or not looked up.
"""

from loadtests.report.model import Definition

DEFINITIONS = (
    Definition(
        term="TTFT",
        here="First chunk with content or reasoning text − sent. The empty role chunk does not count. "
        "Streamed requests only; also kept from the scheduled time.",
        vllm="First chunk that has choices, the role chunk included, − sent.",
        aiperf="As here; to the first token that is not reasoning it is called TTFO.",
        guidellm="First token iteration − request start.",
    ),
    Definition(
        term="TPOT",
        here="(e2e − TTFT) / (n − 1) per request; n is the server's completion_tokens.",
        vllm="The same formula per request.",
        aiperf="The same formula, called inter-token latency (ITL); it counts n with a tokenizer of its own.",
        guidellm="(Last token − request start) / n: the first token's wait is in it. Its ITL is our TPOT.",
    ),
    Definition(
        term="Inter-chunk gap",
        here="Time between two content chunks. One chunk may carry several tokens, so it is no token "
        "latency; the report shows each request's longest gap.",
        vllm="Gaps between chunks, called ITL and pooled over all requests.",
        aiperf="Called inter-chunk latency (ICL), apart from ITL.",
        guidellm="–",
    ),
    Definition(
        term="End to end",
        here="Sent to the last content chunk; usage chunk and [DONE] do not count.",
        vllm="Sent to the last chunk, the usage chunk included.",
        aiperf="Request start to the last response (request latency).",
        guidellm="Request start to request end.",
    ),
    Definition(
        term="Goodput",
        here="Requests that meet every objective / length of the measured window; errors are misses. Not "
        "streamed: whole answer within TTFT + (n − 1) · TPOT objectives.",
        vllm="Successful requests within every given limit / duration.",
        aiperf="Requests within every given limit / duration.",
        guidellm="–",
    ),
    Definition(
        term="Output tokens/s",
        here="Tokens delivered inside the measured window / its length; a stream's tokens are spread "
        "evenly over its time.",
        vllm="All tokens / time until the last request ends.",
        aiperf="All tokens / (last response − first request).",
        guidellm="–",
    ),
    Definition(
        term="Percentiles",
        here="Exact, from all raw values, linear interpolation between neighbours.",
        vllm="numpy, linear interpolation.",
        aiperf="–",
        guidellm="–",
    ),
    Definition(
        term="Cost per request",
        here="Fully loaded: all the ledger metered for the model from start to end of the run (direct, "
        "waste, idle, cold start, overhead) / successful requests of the whole run, warm-up included. "
        "Direct: mean of the responses' usage.cost. Per million tokens: the same cost / (prompt + "
        "completion tokens).",
        vllm="–",
        aiperf="–",
        guidellm="–",
    ),
    Definition(
        term="Same traffic at API prices",
        here="Tokens of the successful requests, as counted by our tokenizers, × the API's prices; input "
        "that was cached here is taken as cached there.",
        vllm="–",
        aiperf="–",
        guidellm="–",
    ),
)
