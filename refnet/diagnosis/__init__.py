"""From a port's outputs to the porting mistake that reproduces them."""
