"""Metrics and pictures of models, during training and afterwards."""
