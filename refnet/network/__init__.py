"""The networks as TF-Slim writes them down, and what their variables' names and shapes say of them."""
