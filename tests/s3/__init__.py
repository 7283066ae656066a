"""A real S3 server on this machine, and a network before it that fails on demand."""
