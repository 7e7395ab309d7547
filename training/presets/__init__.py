"""One run a file, named after method and data: PRESET cites paper, table row, cost and result."""

from fovea.pipeline.lookup import own_folders

__path__ += own_folders(__name__)
