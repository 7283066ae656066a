"""Figures and pictures of models, while they train and afterwards."""
