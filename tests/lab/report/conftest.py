"""One home with something of everything, and its report, for all tests that only read them."""

from __future__ import annotations

import pytest

from core.journal import Journal
from lab.floor import Rival
from lab.report.build import Built, build
from lab.report.sections.floor import Asked
from tests.lab.report.homes import Scene, whole

RIVALS = (Rival("them", 1.5), Rival("others", 2.75))


def built(scene: Scene, asked: Asked | None = None) -> Built:
    with Journal.open(scene.home) as journal:
        return build(scene.home, journal.conn, asked or Asked())


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return whole(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="package")
def report(scene: Scene) -> Built:
    return built(scene, Asked(rivals=RIVALS))
