"""Reaching a machine and logging in: each refusal with its rung, its reason and its remedy; nothing waits for ever."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from lanes.ssh import hostkeys
from lanes.ssh.connect import scan
from lanes.ssh.settings import SshSettings
from lanes.transport import LinkDown, LinkRefused
from tests.lanes.ssh.servers import Lanes, Proxy, Server, Sshd, free_port, keygen, public_key

SECRET = "correct-horse-battery"


def refused(lane: Lanes, settings: SshSettings, rung: str, cause: str) -> LinkRefused:
    transport = lane(settings)
    with pytest.raises(LinkRefused) as caught:
        transport.call("hello", timeout_s=60)
    assert (caught.value.rung, caught.value.cause) == (rung, cause), caught.value
    link = transport.link()
    assert not link["up"]
    assert link["refused"] == caught.value.as_dict()
    return caught.value


def down(lane: Lanes, settings: SshSettings) -> str:
    transport = lane(settings)
    with pytest.raises(LinkDown) as caught:
        transport.call("hello", timeout_s=60)
    assert transport.link()["refused"] is None
    assert transport.link()["error"] == caught.value.message
    return caught.value.message


# Who is it?


def test_an_unknown_host_key_is_refused_until_it_is_trusted(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    settings = sshd.settings(tmp_path, trusted=False)
    why = refused(lane, settings, "trusted", "host-key-unknown")
    assert sshd.key().fingerprint in why.message
    assert "lab lane trust mini" in why.hint
    (seen,) = scan(settings)
    assert seen.standing == "unknown"
    assert seen.key == sshd.key()
    assert not settings.known_hosts.exists(), "looking does not trust"
    hostkeys.store(settings.known_hosts, seen.key)
    # The same transport, knocked at: nobody has to start anything anew.
    lane.made[-1].knock()
    assert lane.made[-1].call("hello", timeout_s=60)["boot_id"]
    assert lane.made[-1].link()["fingerprint"] == sshd.key().fingerprint
    assert scan(settings)[0].standing == "same"


def test_a_changed_host_key_is_refused_loudly(make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    sshd = make_sshd()
    settings = sshd.settings(tmp_path)
    before = sshd.key()
    assert lane(settings).call("hello", timeout_s=60)
    lane.made[-1].close()
    sshd.new_host_key()
    why = refused(lane, settings, "trusted", "host-key-changed")
    assert "HAS CHANGED" in why.message
    assert before.fingerprint in why.message
    assert sshd.key().fingerprint in why.message
    assert "--replace" in why.hint
    (seen,) = scan(settings)
    assert (seen.standing, seen.known) == ("changed", (before,))


def test_a_server_with_several_keys_shows_the_one_that_we_know(
    make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path
) -> None:
    rsa = keygen(tmp_path / "rsa", kind="rsa")
    sshd = make_sshd(f"HostKey {rsa}")
    settings = sshd.settings(tmp_path)
    hostkeys.store(settings.known_hosts, public_key(tmp_path / "rsa.pub", sshd.key().name), replace=True)
    assert lane(settings).call("hello", timeout_s=60)
    # The negative twin: one of a kind that this server does not show is a changed one, not an unknown one.
    stranger = public_key(Path(f"{keygen(tmp_path / 'ecdsa', kind='ecdsa')}.pub"), sshd.key().name)
    hostkeys.store(settings.known_hosts, stranger, replace=True)
    refused(lane, settings, "trusted", "host-key-changed")


def test_a_file_of_host_keys_that_cannot_be_read(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    settings = sshd.settings(tmp_path, trusted=False)
    settings.known_hosts.mkdir()
    assert "IsADirectoryError" in down(lane, settings)


# May we in?


def test_a_refused_key_is_named(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    other = keygen(tmp_path / "other")
    why = refused(lane, sshd.settings(tmp_path, identity=str(other)), "authenticated", "auth-refused")
    assert str(other) in why.message
    assert "publickey" in why.message
    assert "authorized_keys" in why.hint


def test_a_key_with_a_passphrase_is_named(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    locked = keygen(tmp_path / "locked", passphrase="secret phrase")
    why = refused(lane, sshd.settings(tmp_path, identity=str(locked)), "authenticated", "auth-refused")
    assert "passphrase" in why.message
    assert "ssh-add" in why.hint


def test_a_key_that_is_not_there_is_named(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    why = refused(lane, sshd.settings(tmp_path, identity=str(tmp_path / "none")), "authenticated", "auth-refused")
    assert f"{tmp_path / 'none'}" in why.message


def test_a_server_that_hangs_up_after_some_keys(make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    sshd = make_sshd("MaxAuthTries 2")
    config = tmp_path / "keys"
    config.write_text("".join(f"IdentityFile {keygen(tmp_path / f'key{n}')}\n" for n in range(4)))
    settings = sshd.settings(tmp_path, identity=None, ssh_config=str(config))
    why = refused(lane, settings, "authenticated", "auth-refused")
    assert "Too many authentication failures" in why.message
    assert "key0" in why.message


def test_a_link_that_is_lost_during_the_login_is_no_refusal(
    sshd: Sshd, lane: Lanes, tmp_path: Path, serve: Callable[[Server], Server]
) -> None:
    """The negative twin: it would be tried again only when somebody knocks."""
    key = paramiko.RSAKey.from_private_key_file(str(keygen(tmp_path / "server", kind="rsa")))

    class HangsUp(PasswordServer):
        def get_allowed_auths(self, username: str) -> str:
            return "publickey"

        def check_auth_publickey(self, username: str, key: Any) -> int:
            made[-1].sock.close()
            return int(paramiko.AUTH_FAILED)

    made: list[Any] = []

    def handle(sock: socket.socket) -> None:
        made.append(paramiko.Transport(sock))
        made[-1].set_log_channel("lab.test")
        made[-1].add_server_key(key)
        made[-1].start_server(server=HangsUp("publickey"))
        made[-1].join()

    server = serve(Server(handle))
    settings = sshd.settings(tmp_path, port=server.port)
    hostkeys.store(settings.known_hosts, scan(settings)[0].key, replace=True)
    message = down(lane, settings)
    assert "during the login" in message
    assert str(sshd.user_key) in message


@pytest.fixture
def ssh_agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        pytest.skip("there is no ssh-agent here")
    place = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while not place.exists() and time.monotonic() < until:
            time.sleep(0.01)
        yield {"SSH_AUTH_SOCK": str(place)}
    finally:
        process.kill()
        process.wait()


def test_a_key_of_the_ssh_agent(
    sshd: Sshd, lane: Lanes, tmp_path: Path, ssh_agent: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sshd.settings(tmp_path, identity=None, ssh_config=str(tmp_path / "keyless"))
    (tmp_path / "keyless").write_text("IdentityFile none\n")
    monkeypatch.setenv("SSH_AUTH_SOCK", ssh_agent["SSH_AUTH_SOCK"])
    refused(lane, settings, "authenticated", "auth-refused")
    subprocess.run(["ssh-add", "-q", str(sshd.user_key)], env={**os.environ, **ssh_agent}, check=True)
    assert lane(settings).call("hello", timeout_s=60)


class PasswordServer(paramiko.ServerInterface):
    """Takes a password, by one method or the other."""

    def __init__(self, method: str) -> None:
        self.method = method

    def get_allowed_auths(self, username: str) -> str:
        return self.method

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL if password == SECRET else paramiko.AUTH_FAILED

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        return paramiko.InteractiveQuery("", "", ("Password: ", False))

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        return paramiko.AUTH_SUCCESSFUL if responses == [SECRET] else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        threading.Thread(target=_run, args=(channel, command), daemon=True).start()
        return True


def _run(channel: Any, command: bytes) -> None:
    with subprocess.Popen(
        ["/bin/sh", "-c", command.decode()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def feed() -> None:
            with contextlib.suppress(OSError, EOFError):
                while data := channel.recv(1 << 16):
                    stdin.write(data)
            stdin.close()

        threading.Thread(target=feed, daemon=True).start()
        with contextlib.suppress(OSError, EOFError):
            while data := stdout.read(1 << 16):
                channel.sendall(data)
        channel.close()


@pytest.fixture
def password_lane(tmp_path: Path, serve: Callable[[Server], Server]) -> Callable[..., SshSettings]:
    def make(method: str, **changes: Any) -> SshSettings:
        key = paramiko.RSAKey.generate(2048)

        def handle(sock: socket.socket) -> None:
            transport = paramiko.Transport(sock)
            transport.set_log_channel("lab.test")
            transport.add_server_key(key)
            transport.start_server(server=PasswordServer(method))
            transport.join()

        server = serve(Server(handle))
        (tmp_path / "ssh_config").write_text("IdentityFile none\n")
        usual: dict[str, Any] = {
            "lane": "bat00",
            "host": "127.0.0.1",
            "port": server.port,
            "user": getpass.getuser(),
            "head": "h",
            "home_hash": "h",
            "known_hosts": tmp_path / "known_hosts",
            "python": sys.executable,
            "root": str(tmp_path / "lane"),
            "ssh_config": str(tmp_path / "ssh_config"),
            "jump": "none",
        }
        settings = SshSettings(**{**usual, **changes})
        hostkeys.store(settings.known_hosts, scan(settings)[0].key, replace=True)
        return settings

    return make


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_a_password_from_the_variable_that_is_named(
    method: str,
    password_lane: Callable[..., SshSettings],
    lane: Lanes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = password_lane(method, password_env="LAB_TEST_PASSWORD")
    monkeypatch.setattr(logging.getLogger("lab.ssh"), "propagate", True)
    with caplog.at_level(logging.DEBUG):
        monkeypatch.delenv("LAB_TEST_PASSWORD", raising=False)
        missing = refused(lane, settings, "authenticated", "auth-refused")
        assert "LAB_TEST_PASSWORD" in missing.message
        assert "LAB_TEST_PASSWORD" in missing.hint
        monkeypatch.setenv("LAB_TEST_PASSWORD", SECRET + "x")
        wrong = refused(lane, settings, "authenticated", "auth-refused")
        monkeypatch.setenv("LAB_TEST_PASSWORD", SECRET)
        transport = lane(settings)
        assert transport.call("hello", timeout_s=60)
    assert "debug" in caplog.text.lower(), "the log was really listened to"
    for text in (str(wrong), repr(wrong), repr(settings), repr(transport), str(transport.link()), caplog.text):
        assert SECRET not in text
    for path in (p for p in Path(settings.root).rglob("*") if p.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path


# Is it there?


def test_nobody_listens(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    assert "refused" in down(lane, sshd.settings(tmp_path, port=free_port())).lower()


def test_a_name_that_does_not_resolve(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    message = down(lane, sshd.settings(tmp_path, host="no-such-machine.invalid"))
    assert "no-such-machine.invalid does not resolve" in message


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("silent", "in time"),
        ("drips", "in time"),
        ("eof", "does not speak ssh"),
        ("http", "does not speak ssh"),
        ("noise", "does not speak ssh"),
        ("half", "does not speak ssh"),
    ],
)
def test_servers_that_are_none(
    what: str, said: str, sshd: Sshd, lane: Lanes, tmp_path: Path, serve: Callable[[Server], Server]
) -> None:
    """However they behave: a clear word within the limit, nobody waits for ever, and it is tried again."""
    stop = threading.Event()

    def handle(sock: socket.socket) -> None:
        if what == "silent":
            stop.wait()
        while what == "drips" and not stop.wait(0.2):
            sock.sendall(b"please wait\r\n")
        if what == "http":
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if what == "noise":
            sock.sendall(os.urandom(1 << 16))
        if what == "half":
            sock.sendall(b"SSH-2.0-Odd_1.0\r\n" + os.urandom(512))
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        sock.close()

    server = serve(Server(handle))
    begun = time.monotonic()
    message = down(lane, sshd.settings(tmp_path, port=server.port, connect_s=2.0))
    assert said in message
    assert time.monotonic() - begun < 30
    stop.set()


def test_a_slow_banner_is_waited_for(
    sshd: Sshd, lane: Lanes, tmp_path: Path, serve: Callable[[Server], Server]
) -> None:
    proxy = Proxy(sshd.port)
    serve(proxy)
    seen: list[bytes] = []

    def slow(data: bytes) -> bytes:
        if not seen:
            seen.append(data)
            time.sleep(1.0)
            return b"a line before the banner, which is allowed\r\n" + data
        return data

    proxy.change = slow
    assert lane(sshd.settings(tmp_path, port=proxy.port)).call("hello", timeout_s=60)
    assert seen[0].startswith(b"SSH-2.0")


# Ways round.


def test_through_a_jump_host(make_sshd: Callable[..., Sshd], sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """Both hops' keys are checked; the first that is not trusted is named, and what is behind it is not reached."""
    gate = make_sshd("AllowTcpForwarding yes")
    settings = sshd.settings(tmp_path, jump=f"{getpass.getuser()}@127.0.0.1:{gate.port}", identity=None)
    both = tmp_path / "both"
    both.write_text(f"IdentityFile {gate.user_key}\nIdentityFile {sshd.user_key}\n")
    settings = SshSettings(**{**settings.__dict__, "ssh_config": str(both)})
    why = refused(lane, settings, "trusted", "host-key-unknown")
    assert f"[127.0.0.1]:{gate.port}" in why.message
    assert [s.key.name for s in scan(settings)] == [f"[127.0.0.1]:{gate.port}"]
    gate.trust(settings.known_hosts)
    assert [s.standing for s in scan(settings)] == ["same", "same"]
    transport = lane(settings)
    assert transport.call("hello", timeout_s=60)
    assert transport.link()["address"].endswith(f":{sshd.port}")
    # The inner key counts too.
    hostkeys.store(settings.known_hosts, gate.key(sshd.port), replace=True)
    refused(lane, settings, "trusted", "host-key-changed")


def test_a_jump_host_that_does_not_forward(
    make_sshd: Callable[..., Sshd], sshd: Sshd, lane: Lanes, tmp_path: Path
) -> None:
    gate = make_sshd("AllowTcpForwarding no")
    both = tmp_path / "both"
    both.write_text(f"IdentityFile {gate.user_key}\nIdentityFile {sshd.user_key}\n")
    jump = f"{getpass.getuser()}@127.0.0.1:{gate.port}"
    settings = sshd.settings(tmp_path, jump=jump, identity=None, ssh_config=str(both))
    gate.trust(settings.known_hosts)
    assert "TcpForwarding" in refused(lane, settings, "reachable", "no-forwarding").hint


FORWARD = """
import os, socket, sys, threading
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while True:
        data = os.read(0, 65536)
        if not data: return s.shutdown(1)
        s.sendall(data)
threading.Thread(target=up, daemon=True).start()
while True:
    data = s.recv(65536)
    if not data: break
    os.write(1, data)
"""


def test_through_a_proxy_command(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    script = tmp_path / "forward.py"
    script.write_text(FORWARD)
    config = tmp_path / "with_proxy"
    config.write_text(f"Host far\n  HostName 127.0.0.1\n  ProxyCommand {sys.executable} {script} %h %p\n")
    transport = lane(sshd.settings(tmp_path, host="far", ssh_config=str(config)))
    assert transport.call("hello", timeout_s=60)
    config.write_text("Host far\n  HostName 127.0.0.1\n  ProxyCommand false\n")
    assert "does not speak ssh" in down(lane, sshd.settings(tmp_path, host="far", ssh_config=str(config)))


def test_one_session_is_enough(make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    sshd = make_sshd("MaxSessions 1")
    transport = lane(sshd.settings(tmp_path))
    assert transport.call("hello", timeout_s=60)
    assert transport.call("put", "x", bytes(1 << 20), bulk=True, timeout_s=60)
    log = (sshd.folder / "sshd.log").read_text()
    assert log.count("Accepted publickey") == log.count("Starting session") == 1
