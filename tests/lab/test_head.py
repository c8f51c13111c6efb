"""`lab --head HOST`: the same command elsewhere. With an ssh that only notes what it was given, and with a real one."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import BadInput
from lab import head
from lab.head import Head
from tests.lab.shell import ROOT
from tests.support import wait_for

FAKE = """#!/bin/sh
printf '%s\\n' "$#" "$@" > "$FAKE_SSH_LOG"
[ -n "$FAKE_SSH_OUT" ] && printf '%s' "$FAKE_SSH_OUT"
exit "${FAKE_SSH_CODE:-0}"
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh on PATH that notes its words."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(FAKE)
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SSH_LOG", str(tmp_path / "words"))
    monkeypatch.delenv("LAB_HEAD", raising=False)
    monkeypatch.delenv("LAB_HEAD_COMMAND", raising=False)
    return tmp_path / "words"


def lab(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **env}
    argv = [sys.executable, "-P", "-m", "lab", *args]
    return subprocess.run(
        argv, capture_output=True, text=True, env=full, cwd=cwd, stdin=subprocess.DEVNULL, timeout=60, check=False
    )


def words(file: Path) -> list[str]:
    return file.read_text().splitlines()[1:]


def test_every_word_arrives_quoted(fake: Path) -> None:
    done = lab("--head", "mini", "submit", "command", "--name", "it's; touch $HOME", "--", "echo", "a  b", "")
    assert done.returncode == 0, done.stderr
    assert words(fake) == [
        "--",
        "mini",
        "env LAB_HEAD= lab submit command --name 'it'\"'\"'s; touch $HOME' -- echo 'a  b' ''",
    ]


def test_the_variable_and_the_option(fake: Path) -> None:
    lab("status", "--json", LAB_HEAD="me@mini:projects/my scan", LAB_HEAD_COMMAND="~/venv/bin/lab")
    assert words(fake) == ["--", "me@mini", "cd 'projects/my scan' && env LAB_HEAD= ~/venv/bin/lab status --json"]
    lab("--home", "/data/lab", "--head=other", "status", LAB_HEAD="mini")
    assert words(fake) == ["--", "other", "env LAB_HEAD= lab --home /data/lab status"]
    # A program's own option is none of ours, and the empty word means here.
    fake.unlink()
    assert lab("run", "--help", "--head", "x").returncode != 255
    assert lab("--head", "", "--version", LAB_HEAD="mini").stdout.startswith("lab ")
    assert not fake.exists()


def test_exit_code_and_output_pass_through(fake: Path) -> None:
    done = lab("--head", "mini", "status", "9", FAKE_SSH_OUT='{"schema": "x/1"}', FAKE_SSH_CODE="1")
    assert (done.returncode, done.stdout, done.stderr) == (1, '{"schema": "x/1"}', "")


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        (255, 6, "ssh could not run the command on mini"),
        (127, 3, "'lab' is not found on mini"),
        (126, 3, "cannot be run"),
    ],
)
def test_what_goes_wrong_on_the_way_is_said(fake: Path, code: int, exit_code: int, said: str) -> None:
    done = lab("--head", "mini", "status", FAKE_SSH_CODE=str(code))
    assert done.returncode == exit_code
    assert said in done.stderr
    as_json = lab("--head", "mini", "status", "--json", FAKE_SSH_CODE=str(code))
    assert said in json.loads(as_json.stdout)["message"]


def test_a_file_of_this_machine_is_told_apart(fake: Path, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1")
    done = lab("--head", "mini", "submit", "command", "--input=data.csv", cwd=tmp_path, FAKE_SSH_CODE="2")
    assert done.returncode == 2
    assert done.stderr == "lab: data.csv is a file of this machine; with --head, files are those of mini\n"
    done = lab("--head", "mini", "submit", "command", "--input", "none.csv", cwd=tmp_path, FAKE_SSH_CODE="2")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=touch x", "a b", "a\nb", "a;b", "$(x)", "me@-x", "@mini", "mini:", "mini:22", "mini:-x",
             "mini:a\nb", "ssh://mini:99999", "ssh://me@/x", "ssh://-x", "a/b"],
)  # fmt: skip
def test_hostile_hosts_are_refused(fake: Path, host: str) -> None:
    with pytest.raises(BadInput):
        head.read(host, "--head")
    for done in (lab("--head", host, "status"), lab("status", LAB_HEAD=host)):
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1
    assert not fake.exists()


def test_hosts_as_people_write_them() -> None:
    assert head.read("mini", "-") == Head("mini")
    assert head.read("me@mini.example", "-") == Head("me@mini.example")
    assert head.read("mini:~/scan", "-") == Head("mini", "~/scan")
    assert head.read("ssh://me@mini:2222", "-") == Head("ssh://me@mini:2222")
    assert head.read("ssh://[fe80::1]:22", "-") == Head("ssh://[fe80::1]:22")
    line = head.command(Head("mini", "~/my scan"), ["status"], {}, terminal=True)
    assert line == ["ssh", "-t", "--", "mini", "cd ~/'my scan' && env LAB_HEAD= lab status"]
    with pytest.raises(BadInput):
        head.command(Head("mini"), ["status"], {"LAB_HEAD_COMMAND": "lab\nid"}, terminal=False)
    with pytest.raises(BadInput, match="names no host"):
        head.asked(["--head"], {})


def test_a_terminal_is_passed_on(fake: Path) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-P", "-m", "lab", "--head", "mini", "top"]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        assert process.wait(60) == 0
    os.close(ours)
    os.close(theirs)
    assert words(fake)[:3] == ["-t", "--", "mini"]


def test_nothing_heavy_is_loaded(fake: Path) -> None:
    code = "import sys; from lab.main import main; main(['--head', 'mini', 'status']); print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=env, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"typer", "click", "rich", "pydantic", "yaml", "ray", "sqlite3", "paramiko", "numpy", "textual"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real sshd on 127.0.0.1 for this very user, and an ssh that knows it as `the-head`."""
    sshd, keygen, ssh = (shutil.which(n, path="/usr/sbin:/usr/bin:/sbin:/bin") for n in ("sshd", "ssh-keygen", "ssh"))
    if not (sshd and keygen and ssh):
        pytest.skip("there is no OpenSSH server and client on this machine")
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "authorized").write_text((tmp_path / "user.pub").read_text())
    (tmp_path / "authorized").chmod(0o600)
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {tmp_path}/authorized\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}")
    (tmp_path / "ssh_config").write_text(
        f"Host the-head\n HostName 127.0.0.1\n Port {port}\n IdentityFile {tmp_path}/user\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {tmp_path}/known\n StrictHostKeyChecking yes\n BatchMode yes\n"
    )
    wrapper = tmp_path / "sshbin"
    wrapper.mkdir()
    (wrapper / "ssh").write_text(f'#!/bin/sh\nexec {ssh} -F {tmp_path}/ssh_config "$@"\n')
    (wrapper / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("LAB_HEAD", raising=False)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    log = (tmp_path / "sshd.log").open("wb")
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "sshd.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as s:
            return s.recv(4) == b"SSH-"
        return False

    try:
        wait_for(answers, "sshd to answer", deadline_s=20)
        done = subprocess.run([str(wrapper / "ssh"), "the-head", "true"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"sshd lets nobody in here: {(done.stderr or 'no reason').splitlines()[-1]}")
        yield "the-head"
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def test_over_a_real_ssh(server: str, tmp_path: Path) -> None:
    home = tmp_path / "my home"
    command = f"env PYTHONPATH={ROOT} {sys.executable} -P -m lab"
    done = lab("--head", server, "--home", str(home), "init", LAB_HEAD_COMMAND=command, LAB_HOME="")
    done = lab("--head", f"{server}:{tmp_path}", "status", "--json", "--home", str(home), LAB_HEAD_COMMAND=command)
    assert done.stdout, done.stderr
    body = json.loads(done.stdout)
    assert body["schema"].startswith("lab.")
    missing = lab("--head", server, "--home", str(home), "status", "4711", LAB_HEAD_COMMAND=command)
    assert missing.returncode == 3
    assert "4711" in missing.stderr + missing.stdout
    gone = lab("--head", server, "status", LAB_HEAD_COMMAND="no-such-lab-anywhere")
    assert gone.returncode == 3
    assert "no-such-lab-anywhere" in gone.stderr
    begun = time.monotonic()
    nobody = lab("--head", "nobody.invalid", "status")
    assert nobody.returncode == 6
    assert time.monotonic() - begun < 60
