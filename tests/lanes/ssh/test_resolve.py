"""Hosts are resolved by OpenSSH's own rules: aliases, ports, users, keys, jump hosts and proxy commands."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path
from typing import Any

import pytest

from lanes.ssh.resolve import Hop, resolve
from lanes.ssh.settings import SshSettings
from lanes.transport import LinkRefused

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh program here")

CONFIG = """
Host bat
    HostName bat00.example
    User seed
    Port 2200
    IdentityFile {folder}/key
    IdentityFile {folder}/absent
    IdentitiesOnly yes
Host inner
    HostName 10.0.0.9
    ProxyJump me@gate:2222,second
Host gate
    HostName gate.example
    ProxyJump outermost
Host circle
    ProxyJump circle2
Host circle2
    ProxyJump circle
Host command
    HostName hidden.example
    ProxyCommand corkscrew proxy 80 %h %p %r 100%%
Host alias
    HostKeyAlias Known-As
Host evil
    HostName bad;name
"""


def hops(tmp_path: Path, host: str, **changes: Any) -> tuple[Hop, ...]:
    config = tmp_path / "config"
    (tmp_path / "key").write_text("")
    config.write_text(CONFIG.format(folder=tmp_path))
    known = tmp_path / "known_hosts"
    return resolve(
        SshSettings(lane="x", host=host, head="h", home_hash="x", known_hosts=known, ssh_config=str(config), **changes)
    )


def test_an_alias(tmp_path: Path) -> None:
    (hop,) = hops(tmp_path, "bat")
    assert (hop.address, hop.name) == ("seed@bat00.example:2200", "[bat00.example]:2200")
    assert hop.identities == (str(tmp_path / "key"),)
    assert hop.identities_only


def test_a_plain_host(tmp_path: Path) -> None:
    (hop,) = hops(tmp_path, "Mini.example")
    assert (hop.address, hop.name) == (f"{getpass.getuser()}@mini.example:22", "mini.example")
    assert not hop.identities_only


def test_what_cluster_yaml_says_goes_before(tmp_path: Path) -> None:
    (hop,) = hops(tmp_path, "bat", user="other", port=22, identity=str(tmp_path / "mine"))
    assert (hop.address, hop.name) == ("other@bat00.example:22", "bat00.example")
    assert hop.identities == (str(tmp_path / "mine"),)


def test_jump_hosts_with_a_jump_host_of_their_own(tmp_path: Path) -> None:
    found = [h.address.partition("@")[2] for h in hops(tmp_path, "inner")]
    assert found == ["outermost:22", "gate.example:2222", "second:22", "10.0.0.9:22"]
    assert hops(tmp_path, "inner")[1].user == "me"
    assert len(hops(tmp_path, "inner", jump="none")) == 1
    assert [h.host for h in hops(tmp_path, "bat", jump="a")] == ["a", "bat00.example"]


def test_a_circle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinkRefused, match="circle") as caught:
        hops(tmp_path, "circle")
    assert caught.value.rung == "reachable"


def test_a_proxy_command(tmp_path: Path) -> None:
    (hop,) = hops(tmp_path, "command", user="me")
    assert hop.proxy_command == "corkscrew proxy 80 hidden.example 22 me 100%"
    assert hops(tmp_path, "command", jump="gate")[-1].proxy_command is None


def test_an_alias_of_the_key(tmp_path: Path) -> None:
    assert hops(tmp_path, "alias")[0].name == "known-as"


def test_a_configuration_that_leads_to_no_host(tmp_path: Path) -> None:
    with pytest.raises(LinkRefused) as caught:
        hops(tmp_path, "evil")
    assert caught.value.cause == "ssh-config"


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    config = tmp_path / "broken"
    config.write_text("Host x\n  NoSuchWord yes\n")
    settings = SshSettings(
        lane="x", host="y", head="h", home_hash="x", known_hosts=tmp_path / "k", ssh_config=str(config)
    )
    with pytest.raises(LinkRefused, match="ssh -G y") as caught:
        resolve(settings)
    assert caught.value.cause == "ssh-config"
