"""Offline shards and online views: everything between image files and batches.

Imports nothing else of Fovea.
"""
