"""What runs inside a child process: one module for each piece of a stage."""
