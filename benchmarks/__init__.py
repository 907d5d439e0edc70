"""`python -m benchmarks` in a clone: our paths, the paper's formula, timm's own layers and the plain nets, in turn."""
