"""The networks, written as in TF-Slim, and what the names and shapes of their variables show about them."""
