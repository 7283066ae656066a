"""Named conditions of samples: classes, sets of attributes and numbers, which networks take as one vector."""
