"""What is claimed of a GPU, shown or refuted on one: ``python -m benchmarks.gpu_proof --out DIR``."""
