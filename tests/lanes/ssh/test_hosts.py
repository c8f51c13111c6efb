"""What people write where a machine is named: hostile or merely wrong, it is refused in one sentence."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import hosts
from core.errors import BadInput
from lanes.ssh.settings import SshSettings
from lanes.transport import CallTimeout, LinkDown, LinkRefused, RemoteError

HOSTILE = (
    "", "-oProxyCommand=touch /tmp/x", "--", "a b", "a\nb", "a\0b", "a;b", "$(id)", "`id`", "a|b", "a&b", "a'b", 'a"b',
    "a\\b", "a>b", "../x", "a/b", "*", "~", "!x", "a%h", "a\u202eb", "ä", "a\x7f", "\udce9", "x" * 300,
)  # fmt: skip


@pytest.mark.parametrize("check", [hosts.check_host, hosts.check_user, hosts.check_lane_name])
@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_hostile_names_are_refused(check: Callable[[str], str], value: str) -> None:
    with pytest.raises(BadInput) as caught:
        check(value)
    said = str(caught.value)
    assert said.isascii()
    assert "\n" not in said
    assert len(said) < 300
    assert caught.value.hint


@pytest.mark.parametrize(
    "value", ["mini", "bat00.local", "10.0.0.7", "a_b", "::1", "fe80::1%eth0", "[::1]", "a.", "x1"]
)
def test_hosts_are_hosts(value: str) -> None:
    assert hosts.check_host(value) == value.strip("[]")


@pytest.mark.parametrize("value", ["me", "first.last", "me@domain", "_svc", "a-b", "a+b"])
def test_users_are_users(value: str) -> None:
    assert hosts.check_user(value) == value


@pytest.mark.parametrize("value", [0, -1, 65536, True, "22"])
def test_ports_that_are_none(value: Any) -> None:
    with pytest.raises(BadInput, match="65535"):
        hosts.check_port(value)


def test_a_host_with_user_or_port_says_where_those_belong() -> None:
    for value in ("me@mini", "mini:2222"):
        with pytest.raises(BadInput, match="`user:`, `port:`"):
            hosts.check_host(value)


def test_jumps() -> None:
    assert hosts.hops("none") == []
    assert hosts.hops("a") == [("a", None, None)]
    assert hosts.hops("me@a:2222,b") == [("a", "me", 2222), ("b", None, None)]
    assert hosts.hops("me@[::1]:2222") == [("::1", "me", 2222)]
    for bad in ("a,", "a b", "-x", "a:99999", "@a", "a;b"):
        with pytest.raises(BadInput):
            hosts.check_jump(bad)


def test_a_secret_given_for_a_variables_name_is_not_shown() -> None:
    with pytest.raises(BadInput) as caught:
        hosts.check_variable("hunter2!", what="`password_env`")
    assert "hunter2" not in str(caught.value)
    assert hosts.check_variable("LAB_PASSWORD", what="`password_env`") == "LAB_PASSWORD"


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "-x"}, {"user": "a b"}, {"port": 0}, {"lane": "../x"}, {"prefix": ("-x",)}, {"prefix": ("wsl\n",)},
        {"python": "py\0thon"}, {"python": "-c"}, {"root": "a\nb"}, {"root": "~/../x"}, {"root": ""}, {"jump": "a;b"},
        {"password_env": "pass word"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_hold_nothing_hostile(changes: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"lane": "mini", "host": "h", "head": "h", "home_hash": "x", "known_hosts": Path("/k")}
    SshSettings(**usual)
    with pytest.raises(BadInput):
        SshSettings(**{**usual, **changes})


@pytest.mark.parametrize(
    "error",
    [LinkDown("gone"), CallTimeout("late"), LinkRefused("trusted", "x", "m", "h"), RemoteError("T", "m")],
    ids=repr,
)
def test_errors_cross_processes(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)
