"""Trained models on inputs that are not as in training: missing modalities and noise."""
