"""Runs on a Slurm cluster: what to ask for, which job trains which run, and the jobs themselves."""
