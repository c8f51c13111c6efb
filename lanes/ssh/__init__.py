"""The ssh transport: one kept connection to a lane, one channel on it, the agent at its far end.

settings.py says what there is to say about a lane, resolve.py what OpenSSH's configuration adds, hostkeys.py whom we
trust; connect.py and login.py make an authenticated connection, bootstrap.py has the far end running, channel.py
speaks with it, transport.py keeps all that alive.
"""
