"""One file for each artefact, each with one `Report`."""

SHOWN_AFTER = {"run": "comparison", "ablate": "ablation"}
"""{command: the report whose tables it shows when it is done}"""
