"""What each test sample has of a score: numbers (N,) whose mean over samples is the score.

The mean over resampled samples is the score of the resample: exactly for accuracy, where a share is 1 or 0, and to
first order for macro-F1 and mean average precision, whose shares are the score plus N times its derivative by the
sample's weight (the infinitesimal jackknife of Efron 1982). So one matrix product resamples a score of many runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def f1_shares(guesses: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Return the shares (N,) of the mean over all classes of F1 = 2 hits / (guessed + true)."""
    hits = np.bincount(labels[guesses == labels], minlength=num_classes)
    total = np.maximum(np.bincount(guesses, minlength=num_classes) + np.bincount(labels, minlength=num_classes), 1)
    by_hit, by_member = 2 / total, -2 * hits / total**2
    slope = np.where(guesses == labels, by_hit[labels], 0.0) + by_member[labels] + by_member[guesses]
    shares: NDArray[np.float64] = (2 * hits / total).mean() + len(labels) * slope / num_classes
    return shares


def precision_shares(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the shares (N,) of the mean, over the classes that occur, of average precision by `scores` (N, K).

    AP is the mean over a class's samples i of h_i / c_i: of c_i samples with a score no lower, h_i are of the class.
    A sample j adds 1 to c_i, and to h_i if it is of the class, wherever its score is no lower than that of i.
    """
    count, present = len(labels), np.unique(labels)
    falling = -scores.T[present]  # (C, N)
    order = np.argsort(falling, axis=1)
    falling = np.take_along_axis(falling, order, axis=1)
    mine = labels[order] == present[:, None]
    first, last = _ties(falling)
    covered, hits, members = last + 1.0, _at(np.cumsum(mine, axis=1), last), mine.sum(1, keepdims=True)
    precision = hits / covered
    average = (precision * mine).sum(1, keepdims=True) / members
    parts = (mine / covered, mine * hits / covered**2)
    below = [_at(np.cumsum(part[:, ::-1], axis=1)[:, ::-1], first) for part in parts]
    gain = mine * (precision - average + below[0]) - below[1]
    slope = np.empty_like(gain)
    np.put_along_axis(slope, order, gain / members, axis=1)
    shares: NDArray[np.float64] = average.mean() + count * slope.mean(0)
    return shares


def _ties(falling: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first and the last place of each score's equals in falling rows (C, N); (1, N) where all differ.

    Samples of one score are accepted or rejected together: each counts up to the last of its score.
    """
    classes, count = falling.shape
    place = np.arange(count)[None]
    differs = falling[:, 1:] != falling[:, :-1]
    if differs.all():
        return place, place
    edge = np.ones((classes, 1), bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, differs]), place, 0), axis=1)
    last = np.minimum.accumulate(np.where(np.hstack([differs, edge]), place, count)[:, ::-1], axis=1)[:, ::-1]
    return first, last


def _at(values: NDArray[np.floating], places: NDArray[np.intp]) -> NDArray[np.floating]:
    """Return the values (C, N) at places (C, N); themselves where the places are (1, N), all in order."""
    return values if len(places) == 1 < len(values) else np.take_along_axis(values, places, axis=1)
