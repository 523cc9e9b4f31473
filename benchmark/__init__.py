"""ModalBench: a benchmark suite for imbalanced multimodal learning."""

__version__ = "0.1.0"
