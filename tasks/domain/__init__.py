"""Values, rules and errors; pydantic and numpy, no framework and no input or output."""
