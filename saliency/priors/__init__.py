"""One handcrafted prior a file: saliency(regions) -> float32 map (H, W) in [0, 1]."""

from fovea.pipeline.lookup import own_folders

__path__ += own_folders(__name__)
