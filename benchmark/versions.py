"""Which version numbers are of: raised by hand when they change. docs/pages/numbers.md says when."""

NUMERICS = 1
"""Version of the numbers that the core makes: the loop, the recipe, metrics, probe, selection rules, evaluation.

Raise it when the same method, data set, recipe and seed give other recorded numbers, to the bit and on purpose. It is
part of every run's id, so all runs are then trained again. Golden histories (`tests/golden/`) tell when it is due.
"""
