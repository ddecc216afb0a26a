"""From a port's outputs to the porting mistake that reproduces them."""

#: Seconds for which pairs of mistakes are tried, unless the caller says otherwise.
PAIR_SECONDS = 120.0
