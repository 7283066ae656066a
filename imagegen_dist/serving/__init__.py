"""A model behind HTTP: FastAPI on one machine, the same application as a Ray Serve deployment on a cluster."""
