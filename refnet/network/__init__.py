"""The networks as TF-Slim writes them down, and what the names and shapes of their variables say about them."""
