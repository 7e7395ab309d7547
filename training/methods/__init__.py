"""One self-supervised method a file: Config, loss functions, build(config, backbone)."""

from fovea.pipeline.lookup import own_folders

__path__ += own_folders(__name__)
