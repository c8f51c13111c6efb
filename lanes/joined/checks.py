"""May this lane join, and how is its node started? Pure functions."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from core.cluster import LaneConfig


@dataclass(frozen=True)
class Refusal:
    """Why a lane cannot join, in one sentence, and what to do about it."""

    message: str
    hint: str


def here() -> dict[str, str]:
    """Versions of this installation: {"python", "ray"}."""
    return {"python": platform.python_version(), "ray": metadata.version("ray")}


def refusal(lane: str, found: Mapping[str, Any], head: Mapping[str, str]) -> Refusal | None:
    """Why an interpreter on a lane cannot join the head's Ray; None when it can.

    Args:
        found: what the lane's agent says of the interpreter: {"python", "ray" or None, "executable"}, or {"error"}.
        head: versions on the head. Ray wants the same Ray, and the same Python down to the patch number.
    """
    again = f"or give lane {lane} `transport: ssh`, which needs neither"
    provision = f"`lab lane provision {lane}` makes an environment from the lock here"
    if found.get("error"):
        return Refusal(f"lane {lane} cannot join: {found['error']}", f"name another `python` for it, {again}")
    if found["python"] != head["python"]:
        message = (
            f"lane {lane} cannot join: it has Python {found['python']} ({found.get('executable') or 'python'}) and "
            f"the head has {head['python']}; Ray wants the same patch version"
        )
        return Refusal(message, f"install Python {head['python']} there and name it as `python` of the lane, {again}")
    if not found.get("ray"):
        message = f"lane {lane} cannot join: its Python ({found.get('executable') or 'python'}) has no Ray"
        return Refusal(message, f"install ray=={head['ray']} there ({provision}), {again}")
    if found["ray"] != head["ray"]:
        message = f"lane {lane} cannot join: it has Ray {found['ray']} and the head has {head['ray']}"
        return Refusal(message, f"install ray=={head['ray']} there ({provision}), {again}")
    return None


def unreachable(lane: str, host: str, port: int, error: str) -> Refusal:
    """The lane does not get through to the head's Ray."""
    message = f"lane {lane} cannot join: it does not reach the head's Ray at {host}:{port} ({error})"
    hint = (
        "set `ray: {address: ..., port: ...}` at the top of cluster.yaml to an address of the head that lanes reach "
        f"(a LAN or a VPN), and let its firewall through; or give lane {lane} `transport: ssh`"
    )
    return Refusal(message, hint)


def resource(lane: str) -> str:
    """The Ray resource that only this lane's node has."""
    return f"lane:{lane}"


def arguments(config: LaneConfig, *, head: str, port: int, address: str, cores: int) -> list[str]:
    """The arguments of `ray start` for this lane.

    Args:
        head, port: where the head's Ray listens.
        address: the lane's own, as the head reaches it.
    """
    ports = config.ray
    return [
        f"--address={head}:{port}",
        f"--node-ip-address={address}",
        f"--num-cpus={max(1, cores)}",
        "--num-gpus=0",
        "--resources=" + json.dumps({resource(config.name): 1}),
        f"--node-manager-port={ports.node_manager_port}",
        f"--object-manager-port={ports.object_manager_port}",
        f"--runtime-env-agent-port={ports.runtime_env_agent_port}",
        f"--dashboard-agent-grpc-port={ports.dashboard_agent_grpc_port}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent_listen_port}",
        f"--metrics-export-port={ports.metrics_export_port}",
        f"--min-worker-port={ports.min_worker_port}",
        f"--max-worker-port={ports.max_worker_port}",
        f"--object-store-memory={80 << 20}",
        "--include-log-monitor=false",
        "--disable-usage-stats",
    ]
