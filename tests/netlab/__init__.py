"""The parts of the test lab (see tests/lab_net.py). Nothing is imported here: the keeper has no site-packages."""
