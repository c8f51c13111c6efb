"""Where attempts run: lanes, their agents, the supervisor of one attempt, and the context kinds work in."""
