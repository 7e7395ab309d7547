"""One run a file, named after method and data: PRESET cites paper, table row, cost and result."""
