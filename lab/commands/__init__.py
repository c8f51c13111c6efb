"""One command a module: a function named after it (with `_` behind), whose docstring is its help."""
