"""The words that every part of `lab` shares: spec, states, journal, run directory, tables, errors.

Importing this package loads nothing else; each module is imported by its own name.
"""

# Asked for at start-up by every entry point: a foreign package named `core` does not have it.
LAB_PACKAGE = "lab"
