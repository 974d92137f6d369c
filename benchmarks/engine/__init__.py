"""Training by fitune and by its peers, on the same rows, in one run."""
