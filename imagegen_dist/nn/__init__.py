"""Layers for any number of spatial dimensions: convolutions, resampling and residual blocks."""
