"""Inference: likelihoods of given answers, and greedy generation. All that answers goes here."""
