"""One file for each artefact, each with one `Report`."""
