"""Numbers and texts as people read them."""

from __future__ import annotations

import time
from typing import Any


def span(seconds: float | None) -> str:
    """A length of time in at most two units: 0.4s, 12s, 3m20s, 2h05m, 3d04h."""
    if seconds is None:
        return ""
    s = max(0.0, seconds)
    if s < 9.95:
        return f"{s:.1f}s"
    if s < 60:
        return f"{s:.0f}s"
    whole = int(s)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def age(at: float | None, now: float | None = None) -> str:
    """How long ago `at` was, in one unit: 5s, 3m, 2h, 4d."""
    if at is None:
        return ""
    s = max(0.0, (time.time() if now is None else now) - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if s >= size:
            return f"{int(s // size)}{unit}"
    return f"{int(s)}s"


def when(at: float | None) -> str:
    """A wall-clock time here, to the second."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def iso(at: float | None) -> str | None:
    """A wall-clock time for machines: ISO 8601, UTC, milliseconds."""
    if at is None:
        return None
    milliseconds = round(at * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03d}Z"


def size(count: float | None) -> str:
    """Bytes: 512 B, 3.1 KiB, 20 MiB."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 9.95 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def count(n: int, word: str, plural: str = "") -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{n:,} {word if n == 1 else plural or word + 's'}"


def value(v: Any) -> str:
    """A parameter or table cell in one short line."""
    if v is None:
        return "-"
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, float):
        return f"{v:.6g}"
    if isinstance(v, (list, tuple)):
        return f"[{','.join(value(x) for x in v)}]"
    if isinstance(v, dict):
        return " ".join(f"{k}={value(x)}" for k, x in v.items())
    return clean(str(v))


def params(values: dict[str, Any]) -> str:
    """Parameters in one line, `batch=4 channels=[1,4]`, without those that say nothing."""
    return " ".join(f"{k}={value(v)}" for k, v in values.items() if v is not None and v not in ({}, []))


def clean(text: str) -> str:
    """One line without control characters: nothing that a program wrote may move the cursor of the reader."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text).strip()
