"""A net for inference: `fuse`, and its INT8 file for onnxruntime."""
