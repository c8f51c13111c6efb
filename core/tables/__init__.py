"""Result tables: what attempts left as Arrow becomes parts, and queries read the parts that live.

A part lives when the journal lists it: a Parquet file below `tables/`, or rows that are still in the journal itself
until they are compacted. Files that it does not list are leftovers of a commit that never was, and nothing reads them.
Every part is checked against the digest in the journal before its numbers are served: a missing or damaged one is
named, and the rest is served without it.

pyarrow and DuckDB are imported where they are used: `lab status` never pays for them.
"""

from core.tables.live import RESULTS, discarded_jobs, live_parts, part_problem, part_problems, table_names, tables_of
from core.tables.parts import ORIGIN, BadTable, PartInfo, append_part
from core.tables.read import read_table
from core.tables.select import Jobs
from core.tables.sql import Choice, Stream, jobs_table, query, stream

__all__ = [
    "ORIGIN",
    "RESULTS",
    "BadTable",
    "Choice",
    "Jobs",
    "PartInfo",
    "Stream",
    "append_part",
    "discarded_jobs",
    "jobs_table",
    "live_parts",
    "part_problem",
    "part_problems",
    "query",
    "read_table",
    "stream",
    "table_names",
    "tables_of",
]
