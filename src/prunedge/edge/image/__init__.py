"""Image files to pixels: the same code for training and for the device."""
