"""Label leakage in texts: words that tell the label by themselves, and what a linear classifier makes of all words.

Shapes: N texts, V words, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_SUPPORT, MIN_PURITY = 20, 0.98
"""A word leaks the label when so many training texts have it, and such a share of them is of one class."""
CHANCE = 0.01
"""Such words expected of a whole vocabulary if words and labels had nothing to do with each other."""


@dataclass(frozen=True)
class LeakingWords:
    """Words that leak the label."""

    words: Sequence[tuple[str, int, int, int]]
    """(word, class, training texts of that class that hold it, all that do), those in most texts first."""
    num_decided: int
    """Test texts that hold one."""
    accuracy: float
    """Share of those that are of its class; of several words in a text, that of most training texts counts."""


class Bags:
    """Which words are in which texts of train and test, each counted once; words are separated by spaces."""

    def __init__(
        self, train: Sequence[str], train_labels: NDArray[np.int64], test: Sequence[str], test_labels: NDArray[np.int64]
    ) -> None:
        """Count words.

        Args:
            train: texts of train.
            train_labels: their classes, (N,).
            test: texts of test.
            test_labels: their classes.

        Raises:
            ValueError: when no word is in two texts of train.
        """
        from sklearn.feature_extraction.text import CountVectorizer

        vectorizer = CountVectorizer(token_pattern=r"\S+", binary=True, min_df=2)
        self.train, self.test = vectorizer.fit_transform(train), vectorizer.transform(test)  # sparse (N, V)
        self.words: NDArray[Any] = vectorizer.get_feature_names_out()  # (V,)
        self.classes, codes = np.unique(train_labels, return_inverse=True)  # (K,), (N,)
        self.labels, self.test_labels = train_labels, test_labels
        self.sizes = np.bincount(codes)  # (K,)
        self.held = np.stack([np.asarray(self.train[codes == k].sum(0))[0] for k in range(len(self.classes))], 1)
        """Training texts of each class that hold each word, (V, K)."""

    @cached_property
    def majority(self) -> float:
        """Share of the largest class of test."""
        return float(np.bincount(self.test_labels).max() / len(self.test_labels))

    def leaking_words(self) -> LeakingWords:
        """Return the words whose presence alone tells the class, beyond chance."""
        from scipy.stats import binom

        support, most, best = self.held.sum(1), self.held.max(1), self.held.argmax(1)  # each (V,)
        luck = binom.sf(most - 1, support, self.sizes[best] / len(self.labels)) * len(self.words)
        pure = (support >= MIN_SUPPORT) & (most >= MIN_PURITY * support) & (luck < CHANCE)
        order = np.flatnonzero(pure)[np.argsort(-support[pure], kind="stable")]
        words = [(str(self.words[v]), int(self.classes[best[v]]), int(most[v]), int(support[v])) for v in order]
        present = self.test[:, order].toarray().astype(bool)  # (N, words)
        decided = np.flatnonzero(present.any(1))
        if not len(decided):
            return LeakingWords(words, 0, 0.0)
        told = self.classes[best[order]][present[decided].argmax(1)]
        return LeakingWords(words, len(decided), float(np.mean(told == self.test_labels[decided])))

    def best_word(self) -> tuple[str, float]:
        """Return the word whose presence and absence tell most of train, and the accuracy on test of that rule."""
        absent = self.sizes - self.held  # (V, K)
        word = int((self.held.max(1) + absent.max(1)).argmax())
        present = self.test[:, [word]].toarray()[:, 0].astype(bool)
        told = np.where(present, self.classes[self.held[word].argmax()], self.classes[absent[word].argmax()])
        return str(self.words[word]), float(np.mean(told == self.test_labels))

    def linear_accuracy(self) -> float:
        """Return the accuracy on test of a logistic regression on the words of train."""
        from sklearn.linear_model import LogisticRegression

        return float(LogisticRegression(max_iter=200).fit(self.train, self.labels).score(self.test, self.test_labels))
