"""Run directories of batches, as a warm worker leaves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from core.home import Home


def folder(home: Home, name: str, logs: Mapping[int, str]) -> str:
    """Make `batches/NAME` with what each job printed. Returns the digest of its manifest."""
    where = home.batches / name
    where.mkdir(parents=True)
    log, index = b"", []
    for job, text in logs.items():
        index.append(json.dumps({"job": job, "from": len(log), "to": len(log) + len(text.encode())}) + "\n")
        log += text.encode()
    held = {"log.txt": log, "log.idx": "".join(index).encode(), "spec.json": b"{}\n"}
    listed = {}
    for file, data in held.items():
        (where / file).write_bytes(data)
        listed[file] = [hashlib.sha256(data).hexdigest(), len(data)]
    blob = json.dumps({"version": 1, "outcome": {"cause": "ok"}, "files": listed}).encode()
    (where / "manifest.json").write_bytes(blob)
    return hashlib.sha256(blob).hexdigest()
