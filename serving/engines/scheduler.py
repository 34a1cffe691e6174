"""vLLM's scheduler that reports what every engine step worked on.

Why a scheduler: it alone sees every scheduled token, every prefill chunk and every abort; vLLM's statistics do not.
The report leaves by `steps.StepSender`; nothing here waits, prices or keeps books. vLLM loads the class by name
(`scheduler_cls`); the channel's address stands in `additional_config`.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import RequestStatus

from serving.engines.steps import Ended, Step, StepSender

QUALIFIED_NAME = "serving.engines.scheduler.MeteredScheduler"
ADDRESS_KEY = "flotilla_steps"
_ABORTED = {RequestStatus.FINISHED_ABORTED}
_FAILED = {RequestStatus.FINISHED_ERROR, RequestStatus.FINISHED_IGNORED}


class MeteredScheduler(AsyncScheduler):
    """AsyncScheduler, with one message per step to the replica's books."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps = StepSender(self.vllm_config.additional_config[ADDRESS_KEY])
        self._in_flight: dict[int, Step] = {}  # by identity of vLLM's output, which itself travels to workers
        self._cached: dict[str, int] = {}
        self._ended: list[Ended] = []
        self._in_step = False

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's, and notes when it began and on how much context each request builds."""
        start = time.monotonic_ns()
        output = super().schedule(*args, **kwargs)
        requests = self.requests
        for new in output.scheduled_new_reqs:
            self._cached[new.req_id] = new.num_computed_tokens
        # the scheduler has already counted this step's tokens as computed: context is what was there before
        works = [
            (rid, n, max(0, requests[rid].num_computed_tokens - n)) for rid, n in output.num_scheduled_tokens.items()
        ]
        self._in_flight[id(output)] = Step(start, start, works, [])
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """As vLLM's, and sends the step before any of its output can reach a caller."""
        self._in_step = True
        try:
            return super().update_from_output(scheduler_output, model_runner_output)
        finally:
            self._in_step = False
            step = self._in_flight.pop(id(scheduler_output))
            step.end_ns = time.monotonic_ns()
            step.ended, self._ended = self._ended, []
            if step.works or step.ended:
                self._steps.send(step)

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        status = request.status
        outcome = "aborted" if status in _ABORTED else "failed" if status in _FAILED else "finished"
        rid, cached = request.request_id, self._cached.pop(request.request_id, 0)
        self._ended.append(Ended(rid, outcome, request.num_prompt_tokens, cached, request.num_output_tokens))
        if not self._in_step:  # an abort from outside: no step will carry the news soon
            now = time.monotonic_ns()
            ended, self._ended = self._ended, []
            self._steps.send(Step(now, now, [], ended))
        return super()._free_request(request, *args, **kwargs)
