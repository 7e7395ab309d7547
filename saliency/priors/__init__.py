"""One handcrafted prior a file: saliency(regions) -> float32 map (H, W) in [0, 1]."""
