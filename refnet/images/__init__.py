"""From an image file to the network's input, and from the logits to words."""
