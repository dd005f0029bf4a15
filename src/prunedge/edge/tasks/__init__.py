"""What a model's outputs mean on the device, a module for each task."""
