"""Pure numerics: each kernel is a pure function with one signature over backends, chosen by name.

Nothing here imports anything else of ours, and no backend's library is imported before it is asked for.
"""
