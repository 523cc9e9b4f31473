"""One file for each data set, each with one `Dataset`."""
