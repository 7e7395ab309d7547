"""One file a recipe; each defines RECIPE and cites its table."""
