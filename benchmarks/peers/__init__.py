"""What the benchmarks of the data path compare and are made of; each contender runs in a process of its own."""
