"""The dose study: quality of ptychographic reconstructions against dose, arm by arm."""
