"""Samples of a trained model as pictures, animations, folders and shards."""
