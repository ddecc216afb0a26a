"""Other frameworks' ResNets by TF-Slim's names; one module per home."""
