"""vLLM's scheduler that reports what every engine step worked on.

Why a scheduler: it alone sees every scheduled token, every prefill chunk and every abort; vLLM's statistics do not.
The report leaves by `steps.StepSender`; nothing here waits, prices or keeps books. Nearly all steps do what the one
before did, a token further: they are told together, a dozen at a time. vLLM loads the class by name
(`scheduler_cls`); the channel's address stands in `additional_config`.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from serving.engines.steps import DECODE, PREFILL, RECOMPUTE, Ended, Step, StepSender, flags

QUALIFIED_NAME = "serving.engines.scheduler.MeteredScheduler"
ADDRESS_KEY = "flotilla_steps"
_TOGETHER, _TOGETHER_NS = 16, 100_000_000  # most steps in one message, and the longest that the first of them waits
_COUNT_NS = 500_000_000  # how often what waits is counted: whoever decides about replicas asks every other second
_ABORTED = {RequestStatus.FINISHED_ABORTED}
_FAILED = {RequestStatus.FINISHED_ERROR, RequestStatus.FINISHED_IGNORED}


class MeteredScheduler(Scheduler):
    """The scheduler that vLLM would have chosen, with one message per step to the replica's books.

    Asked for one, it makes a `MeteredAsyncScheduler` where vLLM schedules ahead of the model's output; where it does
    not, as on CPUs, the asynchronous one's bookkeeping would cost a per cent of each step for nothing.
    """

    def __new__(cls, vllm_config: Any, *args: Any, **kwargs: Any) -> MeteredScheduler:
        """The one that fits the configuration."""
        if cls is MeteredScheduler and vllm_config.scheduler_config.async_scheduling:
            cls = MeteredAsyncScheduler
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps = StepSender(self.vllm_config.additional_config[ADDRESS_KEY])
        # by identity of vLLM's output, which itself travels to workers: the step, or only its start where it does what
        # the one scheduled before it does
        self._in_flight: dict[int, Step | int] = {}
        self._before: dict[str, int] | None = None  # tokens of the last scheduled step if another could do the same
        self._held: Step | None = None  # that others may join
        self._works: list[tuple[str, int, int, int]] = []  # of the last step that was told whole
        self._since = 0  # steps that did the same since
        self._cached: dict[str, int] = {}
        self._redo: dict[str, int] = {}  # preempted requests: tokens that were computed before
        self._ended: list[Ended] = []
        self._in_step = False
        self._counted_ns = 0

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's, and notes when it began and on how much context each request builds."""
        start = time.monotonic_ns()
        output = super().schedule(*args, **kwargs)
        tokens = output.num_scheduled_tokens
        if tokens == self._before and not (output.scheduled_new_reqs or output.scheduled_spec_decode_tokens
                                           or output.scheduled_cached_reqs.resumed_req_ids or self._redo):
            self._in_flight[id(output)] = start
            return output
        requests, works, alike = self.requests, [], True
        for new in output.scheduled_new_reqs:
            self._cached[new.req_id] = new.num_computed_tokens
        # the scheduler has already counted this step's tokens as computed: context is what was there before
        for rid, n in tokens.items():
            request = requests[rid]
            context = request.num_computed_tokens - n
            if context < request.num_prompt_tokens:
                works.append((rid, n, max(0, context), PREFILL))
                alike = False
            else:
                works.append((rid, n, context, DECODE))
        if self._redo:
            works = [self._marked(work) if work[0] in self._redo else work for work in works]
            alike = False
        self._before = tokens if alike and works and not output.scheduled_spec_decode_tokens else None
        self._in_flight[id(output)] = Step(start, start, works, [])
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """As vLLM's, and tells the step: before a request's last output can reach its caller, if it ends one."""
        self._in_step = True
        step = self._in_flight.pop(id(scheduler_output))
        if (drafts := scheduler_output.scheduled_spec_decode_tokens) and isinstance(step, Step):
            step.works = [_rejected(work, drafts, model_runner_output) for work in step.works]
        try:
            return super().update_from_output(scheduler_output, model_runner_output)
        finally:
            self._in_step = False
            self._tell(step, time.monotonic_ns())

    def _tell(self, step: Step | int, end: int) -> None:
        """Send a step that has ended, or let it wait for more of its kind: never when it ends a request."""
        ended, self._ended = self._ended, []
        held = self._held
        if isinstance(step, int):
            self._since += 1
            if held is None:
                further = self._since
                works = [(rid, n, context + further * n, marks) for rid, n, context, marks in self._works]
                held = self._held = Step(step, end, works, [], 0, [])
            else:
                held.again.append((step, end))
        else:
            if held is not None:
                self._steps.send(held)
            step.end_ns, step.again = end, []
            held = self._held = step
            self._works, self._since = step.works, 0
        if ended:
            held.ended = ended
        elif (self._before is not None and self.requests and len(held.again) < _TOGETHER - 1
              and end - held.start_ns < _TOGETHER_NS):
            return  # there will be a next step
        self._held = None
        if held.works or ended:
            if end - self._counted_ns >= _COUNT_NS:
                self._counted_ns, held.unread = end, self._unread()
            self._steps.send(held)

    def _unread(self) -> int:
        """Tokens of prompts that are still to be computed, waiting or begun."""
        queues = (self.running, self.waiting, self.skipped_waiting)
        return sum(max(0, r.num_prompt_tokens - r.num_computed_tokens) for queue in queues for r in queue)

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        done = max(request.num_computed_tokens, self._redo.get(request.request_id, 0))
        if done:
            self._redo[request.request_id] = done
        return super()._preempt_request(request, *args, **kwargs)

    def _marked(self, work: tuple[str, int, int, int]) -> tuple[str, int, int, int]:
        """Work for a request that was preempted: what of it had been computed before is lost."""
        rid, n, context, _ = work
        lost = min(context + n, self._redo[rid]) - context
        if context + n >= self._redo[rid]:
            del self._redo[rid]
        return (rid, n, context, flags(RECOMPUTE, lost)) if lost > 0 else work

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        status = request.status
        outcome = "aborted" if status in _ABORTED else "failed" if status in _FAILED else "finished"
        rid, cached = request.request_id, self._cached.pop(request.request_id, 0)
        self._redo.pop(rid, None)
        self._ended.append(Ended(rid, outcome, request.num_prompt_tokens, cached, request.num_output_tokens,
                                 request.num_preemptions))
        if not self._in_step:  # an abort from outside: no step will carry the news soon
            now = time.monotonic_ns()
            ended, self._ended = self._ended, []
            if self._held is not None:
                self._steps.send(self._held)
                self._held = None
            self._steps.send(Step(now, now, [], ended))
        return super()._free_request(request, *args, **kwargs)


class MeteredAsyncScheduler(MeteredScheduler, AsyncScheduler):
    """AsyncScheduler, metered."""


def _rejected(work: tuple[str, int, int, int], drafts: dict[str, list[int]], output: Any) -> tuple[str, int, int, int]:
    """Speculative tokens that the model did not confirm are lost: of k drafts and one sampled token it gives 1 to k+1.
    """
    rid, n, context, marks = work
    told = drafts.get(rid)
    if not told or not output.sampled_token_ids:
        return work
    sampled = output.sampled_token_ids[output.req_id_to_index[rid]]
    lost = len(told) - max(0, len(sampled) - 1)
    return (rid, n, context, marks + flags(0, lost)) if sampled and lost > 0 else work
