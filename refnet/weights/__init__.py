"""Weights: files of every kind, other frameworks' names, and untrained weights."""

from refnet.weights.files import load_weights, save_weights
from refnet.weights.weights import Weights

__all__ = ["Weights", "load_weights", "save_weights"]
