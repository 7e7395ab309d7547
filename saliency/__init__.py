"""Unsupervised saliency masks as data. Imports fovea.pipeline only."""
