from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest

from core.cluster import EnvironmentConfig, LaneConfig
from core.home import Home
from lanes.agent import pythons
from lanes.environment import target
from lanes.environment.target import Target
from tests.lanes.environment.access import HereAccess
from tests.lanes.environment.bases import HERE

# One of them is compiled.
SMALL = ("annotated-types", "pydantic", "pydantic-core", "typing-extensions", "typing-inspection")


def lock_text(names: tuple[str, ...] = SMALL) -> str:
    return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in names)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the network for anything, here or on the lane, gets a refusal at once."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    # An uv of this machine would do instead of what is tried here.
    monkeypatch.setattr("lanes.agent.envmake._uv", lambda: None)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    (tmp_path / "cluster.yaml").write_text("lanes: {local: }\n")
    return Home(tmp_path / "home", tmp_path / "cluster.yaml")


Reach = Callable[..., HereAccess]


@pytest.fixture
def reach(tmp_path: Path, home: Home) -> Reach:
    """A lane `far` with these settings of `environment:`."""

    def make(*, roles: tuple[str, ...] = ("eval",), gpus: int | None = None, **environment: str | None) -> HereAccess:
        environment.setdefault("base", HERE)
        config = LaneConfig(
            "far", transport="ssh", host="far", roles=roles, gpus=gpus, environment=EnvironmentConfig(**environment)
        )
        return HereAccess(home, tmp_path / "lane", config)

    return make


@pytest.fixture
def small_lock(tmp_path: Path) -> Path:
    path = tmp_path / "small.txt"
    path.write_text(lock_text())
    return path


@pytest.fixture(scope="session")
def here_target() -> Target:
    """The interpreter that runs the tests."""
    return target.of(pythons.ask(HERE))
