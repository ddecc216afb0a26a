"""How fast the layers of a network, and layers of one's own, run on this machine: checked first, then timed."""
