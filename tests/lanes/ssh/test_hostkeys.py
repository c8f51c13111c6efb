"""Our own file of host keys: unknown is refused, changed is refused loudly, only `replace` changes one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lanes.ssh import hostkeys
from lanes.ssh.hostkeys import HostKey
from lanes.transport import LinkRefused
from tests.lanes.ssh.servers import NO_SSHD, keygen, public_key

ONE = HostKey("mini", "ssh-ed25519", b"one")
TWO = HostKey("mini", "ssh-ed25519", b"two")
OTHER_KIND = HostKey("mini", "ssh-rsa", b"three")
OTHER_HOST = HostKey("[mini]:2222", "ssh-ed25519", b"four")


def refusal(path: Path, key: HostKey) -> LinkRefused:
    with pytest.raises(LinkRefused) as caught:
        hostkeys.check(path, key, "mini")
    assert caught.value.rung == "trusted"
    return caught.value


def test_unknown_then_trusted_then_changed(tmp_path: Path) -> None:
    path = tmp_path / "home" / "known_hosts"
    unknown = refusal(path, ONE)
    assert unknown.cause == "host-key-unknown"
    assert ONE.fingerprint in unknown.message
    assert "lab lane trust mini" in unknown.hint
    hostkeys.store(path, ONE)
    hostkeys.check(path, ONE, "mini")
    for other in (TWO, OTHER_KIND):
        changed = refusal(path, other)
        assert changed.cause == "host-key-changed"
        assert "HAS CHANGED" in changed.message
        assert ONE.fingerprint in changed.message
        assert other.fingerprint in changed.message
        assert "--replace" in changed.hint
    # Another port is another machine.
    assert refusal(path, OTHER_HOST).cause == "host-key-unknown"


def test_a_changed_key_is_stored_only_when_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    hostkeys.store(path, ONE)
    hostkeys.store(path, OTHER_HOST)
    with pytest.raises(LinkRefused):
        hostkeys.store(path, TWO)
    hostkeys.check(path, ONE, "mini")
    hostkeys.store(path, TWO, replace=True)
    hostkeys.check(path, TWO, "mini")
    assert refusal(path, ONE).cause == "host-key-changed"
    hostkeys.check(path, OTHER_HOST, "mini")


def test_the_file_is_ours_alone_and_keeps_what_it_does_not_understand(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("# mine\nmini ssh-ed25519 not*base64\n|1|hashed|x ssh-ed25519 b25l\nbroken\n")
    assert refusal(path, ONE).cause == "host-key-unknown"
    hostkeys.store(path, ONE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().splitlines()[:2] == ["# mine", "mini ssh-ed25519 not*base64"]
    hostkeys.check(path, ONE, "mini")


@pytest.mark.skipif(bool(NO_SSHD), reason=NO_SSHD)
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path, kind: str) -> None:
    path = keygen(tmp_path / kind, kind=kind)
    said = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True).stdout
    assert public_key(Path(f"{path}.pub"), "x").fingerprint == said.split()[1]
