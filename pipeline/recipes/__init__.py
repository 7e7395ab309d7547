"""One file a recipe; each defines RECIPE and cites its table."""

from fovea.pipeline.lookup import own_folders

__path__ += own_folders(__name__)
