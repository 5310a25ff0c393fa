"""A picture of a model's graph: read, folded until people can take it in, laid out, drawn."""
