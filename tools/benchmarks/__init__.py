"""One file a question; results with machine and versions in results/."""
