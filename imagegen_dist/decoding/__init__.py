"""Latents as samples: what a dataset of latents says about its autoencoder, and generators with the decoder behind."""
