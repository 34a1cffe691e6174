"""How many independent requests a run's requests are worth.

Requests that wait in one queue are slow together. An interval that takes them as independent is too narrow, and a
comparison with it cries wolf. So the requests are taken in the order of their time, and their autocorrelation says
how many independent ones would tell as much.
"""

from __future__ import annotations

import numpy as np


def effective_size(values: np.ndarray) -> float:
    """n over the integrated autocorrelation time of a series in order of time; between 1 and n.

    The sum of autocorrelations stops at the first pair of neighbouring lags whose sum is not positive (Geyer 1992,
    "Practical Markov chain Monte Carlo", initial positive sequence). A series that does not vary counts as n.
    """
    n = len(values)
    if n < 4:
        return float(n)
    centred = np.asarray(values, dtype=float) - np.mean(values)
    spectrum = np.fft.rfft(centred, 2 * n)
    covariance = np.fft.irfft(spectrum * np.conj(spectrum), 2 * n)[: n // 2]
    if covariance[0] <= 1e-12 * max(1.0, float(np.mean(np.square(values)))):
        return float(n)
    correlation = covariance / covariance[0]
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    time = 2.0 * float(pairs[: ends[0] if len(ends) else len(pairs)].sum()) - 1.0
    return float(min(n, max(1.0, n / max(1.0, time))))
