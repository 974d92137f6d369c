"""Release: merge, verify, export, serve. Knows saved models; knows nothing of training."""
