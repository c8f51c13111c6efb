"""The kinds of the drift packages, as the command line sees them: each module here stays light."""
