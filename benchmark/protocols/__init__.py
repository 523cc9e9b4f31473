"""Protocols as data: one YAML file each."""
