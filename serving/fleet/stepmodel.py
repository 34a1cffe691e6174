"""How long an engine step takes, and who is due which part of it.

The affine step-time model T = fixed + token*sum(n) + attention*sum(pairs) + cache*sum(context): n tokens are scheduled
for a request on top of `context` tokens already there, and attend to `pairs` earlier tokens. Prompt chunks and decodes
follow one formula. A request's part is the Shapley value of that game (Shapley 1953): the fixed part in equal parts,
the rest to whom it is due.

`StepFitter` learns the four coefficients of a replica from its own steps by non-negative least squares, held to a prior
that counts as a few dozen steps: load that never varies cannot tell the coefficients apart, and then the prior's
ratios decide. Errors count in proportion to the step's length, else long prompt chunks would decide alone. One thing is
demanded beyond the signs: a token of context costs at most what a computed token costs, so that a cached prompt never
costs more than the same one uncached.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from serving.fleet.records import Method, StepFit

_STEPS_NEEDED = 128
_PRIOR_STEPS = 32.0
_REMEMBERED = 20_000.0  # steps after which an old one counts a third
_FIT_EVERY = 64
_FORGET = 1 - 1 / 2_000  # of the error, which is to follow what happens now
_CLIP = 8.0  # a step that took this many times its prediction was held up by something else
Vector = tuple[float, float, float, float]
_ORDER = range(4)
_SUBSETS = [s for size in (4, 3, 2, 1) for s in combinations(_ORDER, size)]


def due(fixed: float, token: float, attention: float, cache: float, tokens: int, context: int, requests: int) -> float:
    """The Shapley value of a request with `tokens` on top of `context` in a step of so many requests.

    A plain function of numbers, because the simulator compiles this very one.
    """
    pairs = tokens * (context + (tokens - 1) / 2)
    return fixed / requests + token * tokens + attention * pairs + cache * context


def due_decoding(fixed: float, token: float, attention: float, cache: float, steps: int, context: int,
                 requests: int) -> float:
    """The sum of `due` over so many steps of one token each, while the step's other requests stay the same."""
    contexts = steps * context + steps * (steps - 1) / 2
    return steps * (fixed / requests + token) + (attention + cache) * contexts


@dataclass(frozen=True)
class StepModel:
    """The coefficients, in seconds or any common unit: only their ratios matter to a share.

    fixed: a step whatever is in it (reading the weights, launching kernels). token: each scheduled token.
    attention: each scheduled token for each token before it. cache: each token of context that a request's step reads.
    """

    fixed: float = 1.0
    token: float = 2e-3
    attention: float = 2e-7
    cache: float = 2e-5

    def part(self, tokens: int, context: int, requests: int) -> float:
        """The Shapley value of a request with `tokens` on top of `context` in a step of so many requests."""
        return due(self.fixed, self.token, self.attention, self.cache, tokens, context, requests)

    def wasted(self, tokens: int, context: int, requests: int, lost: int, redone: bool) -> float:
        """Of that part, what was for nothing: `lost` of the tokens were computed before (`redone`), or thrown away."""
        if lost >= tokens and redone:
            return self.part(tokens, context, requests)
        without = self.part(tokens - lost, context + lost if redone else context, requests)
        return max(0.0, self.part(tokens, context, requests) - without)


PRIOR = StepModel()


class StepFitter:
    """Learns one replica's model from (step time, what was in it). Deterministic; knows no clock and no price."""

    def __init__(self, prior: StepModel = PRIOR) -> None:
        self._prior: Vector = (prior.fixed, prior.token - prior.cache, prior.attention, prior.cache)
        self.model = prior
        self.steps = 0
        self._weight, self._weights = 1.0, 0.0
        self._gram = [[0.0] * 4 for _ in _ORDER]
        self._moment = [0.0] * 4
        self._error = self._time = 0.0
        self._scale = [0.0, 0.0]  # seconds, and what the prior made of the same steps

    @property
    def fitted(self) -> bool:
        """Whether `model` is a fit of this replica, in seconds; else it is the prior."""
        return self.steps >= _STEPS_NEEDED

    @property
    def method(self) -> Method:
        """What rows are to say."""
        return "step-shapley-fit" if self.fitted else "step-shapley-prior"

    def fit(self) -> StepFit | None:
        """The model with its error, or None without a fit."""
        if not self.fitted:
            return None
        m = self.model
        return StepFit(m.fixed, m.token, m.attention, m.cache, self.steps,
                       self._error / self._time if self._time > 0 else None)

    def learn(self, seconds: float, steps: int, tokens: int, pairs: float, context: int) -> None:
        """One step (or `steps` told as one) took so long, with so much in it, summed over its requests."""
        if seconds <= 0:
            return
        x: Vector = (float(steps), float(tokens), pairs, float(context + tokens))
        if self.fitted:
            m = self.model
            guess = m.fixed * steps + m.token * tokens + m.attention * pairs + m.cache * context
            self._error = self._error * _FORGET + abs(seconds - guess)
            self._time = self._time * _FORGET + seconds
        else:
            unscaled = sum(p * v for p, v in zip(self._prior, x, strict=True))
            self._scale = [self._scale[0] + seconds, self._scale[1] + unscaled]
            guess = unscaled * self._scale[0] / self._scale[1]
        guess = max(guess, 1e-9)
        seconds = min(seconds, _CLIP * guess)
        weight = self._weight / (guess * guess)
        for i in _ORDER:
            scaled = weight * x[i]
            self._moment[i] += scaled * seconds
            row = self._gram[i]
            for j in range(i, 4):
                row[j] += scaled * x[j]
        self._weights += self._weight
        self._weight *= 1 + 1 / _REMEMBERED
        self.steps += 1
        if self.steps >= _STEPS_NEEDED and self.steps % _FIT_EVERY == 0:
            self._solve()
            if self._weight > 1e3:
                self._rescale()

    def _rescale(self) -> None:
        by = 1 / self._weight
        self._gram = [[v * by for v in row] for row in self._gram]
        self._moment = [v * by for v in self._moment]
        self._weights *= by
        self._weight = 1.0

    def _solve(self) -> None:
        gram = [[self._gram[min(i, j)][max(i, j)] for j in _ORDER] for i in _ORDER]
        moment, prior = self._moment, self._prior
        due = sum(prior[i] * gram[i][j] * prior[j] for i in _ORDER for j in _ORDER)
        scale = sum(p * m for p, m in zip(prior, moment, strict=True)) / due if due > 0 else 0.0
        hold = _PRIOR_STEPS / (self._weights / self._weight)
        sizes = [gram[i][i] ** 0.5 or 1.0 for i in _ORDER]  # each feature to a like size, else solving loses digits
        wanted = [scale * prior[i] * sizes[i] for i in _ORDER]
        matrix = [[gram[i][j] / (sizes[i] * sizes[j]) + (hold if i == j else 0.0) for j in _ORDER] for i in _ORDER]
        target = [moment[i] / sizes[i] + hold * wanted[i] for i in _ORDER]
        found = [v / s for v, s in zip(nonnegative(matrix, target), sizes, strict=True)]
        self.model = StepModel(found[0], found[1] + found[3], found[2], found[3])


def nonnegative(matrix: list[list[float]], target: list[float]) -> list[float]:
    """The x >= 0 that minimises x'Mx/2 - t'x for a positive definite 4x4 M, by trying all sets of variables above 0.

    It is the one whose gradient is 0 where x is above 0 and not negative elsewhere (Karush, Kuhn, Tucker).
    """
    best, least = [0.0] * 4, 0.0
    for chosen in _SUBSETS:
        part = _solved([[matrix[i][j] for j in chosen] for i in chosen], [target[i] for i in chosen])
        if part is None or min(part) < 0:
            continue
        value = -sum(v * target[i] for v, i in zip(part, chosen, strict=True)) / 2
        if value < least:
            least, best = value, [0.0] * 4
            for v, i in zip(part, chosen, strict=True):
                best[i] = v
    return best


def _solved(matrix: list[list[float]], target: list[float]) -> list[float] | None:
    """Gauss with row pivots; None when the matrix is singular."""
    size = len(target)
    rows = [[*row, t] for row, t in zip(matrix, target, strict=True)]
    for at in range(size):
        pivot = max(range(at, size), key=lambda r: abs(rows[r][at]))
        if abs(rows[pivot][at]) < 1e-12:
            return None
        rows[at], rows[pivot] = rows[pivot], rows[at]
        for below in range(at + 1, size):
            factor = rows[below][at] / rows[at][at]
            for column in range(at, size + 1):
                rows[below][column] -= factor * rows[at][column]
    found = [0.0] * size
    for at in reversed(range(size)):
        rest = sum(rows[at][k] * found[k] for k in range(at + 1, size))
        found[at] = (rows[at][size] - rest) / rows[at][at]
    return found
