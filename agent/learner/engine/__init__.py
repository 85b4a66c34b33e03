"""What makes a model fast on a device: caches, CUDA graphs, kernels."""
