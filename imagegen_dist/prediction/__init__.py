"""What a training would do on a GPU, from its settings alone: counted by fake tensors, on any machine."""
