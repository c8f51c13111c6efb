"""The journal: the one truth about jobs, attempts and lanes.

`Journal` (opening.py, store.py) appends events; `apply` (apply.py) turns events into the state tables, in the live
path and in replay alike; `query` reads; `witness` remembers how long the journal must at least be; `recover` is the
way back.
"""

from core.journal.opening import Role
from core.journal.store import Event, Journal, Tx

__all__ = ["Event", "Journal", "Role", "Tx"]
