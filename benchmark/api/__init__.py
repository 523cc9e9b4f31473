"""The Python API, reached as `import benchmark as mb`: run a sweep, load runs as tables, use trained models."""
