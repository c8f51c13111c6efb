"""What `lab --version` says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lab.output import Page, Report


class VersionReport(Report):
    schema = "lab.version/1"

    def json(self) -> dict[str, Any]:
        return {"version": version()}

    def text(self, page: Page) -> Iterable[str]:
        return [f"lab {version()}"]

    def brief(self) -> Iterable[str]:
        return [version()]


def version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("lab")
    except importlib.metadata.PackageNotFoundError:
        return "0 (not installed)"
