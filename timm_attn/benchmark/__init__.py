"""`timm-attn benchmark`: our paths, the paper's formula, timm's own layers and the plain nets, timed in turn."""
