"""The kinds of the dose study, one light module each: the command line imports them to check parameters."""
