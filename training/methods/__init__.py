"""One self-supervised method a file: Config, loss functions, build(config, backbone)."""
