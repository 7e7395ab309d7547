"""From batches of views to checkpoints and their evaluation. Imports fovea.pipeline only."""
