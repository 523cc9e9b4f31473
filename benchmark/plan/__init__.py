"""From what a user types to a list of runs: parse, resolve, validate, name. Starts nothing, imports no torch."""
