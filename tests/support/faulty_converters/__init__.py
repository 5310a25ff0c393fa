"""Converters as they should not be, to prove that no release comes of them."""
