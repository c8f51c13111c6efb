"""From a login to a running far end: whatever shell, Python, start-up file or disk the lane has."""

from __future__ import annotations

import contextlib
import marshal
import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lanes.agent import boot, serve
from lanes.ssh import bootstrap
from lanes.ssh.settings import SshSettings
from lanes.transport import LinkDown, LinkRefused, RemoteError
from tests.lanes.ssh.servers import Lanes, Sshd, shipped, shipped_store
from tests.lanes.ssh.test_login import refused

PYENV = Path.home() / ".pyenv" / "versions"


def python(minor: str) -> str:
    """A Python of that version; the test is skipped where there is none."""
    found = [*sorted(PYENV.glob(f"{minor}.*/bin/python")), *filter(None, [shutil.which(f"python{minor}")])]
    for path in map(str, found):
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if (done.stdout + done.stderr).startswith(f"Python {minor}."):
            return path
    pytest.skip(f"there is no Python {minor} here")


def works(lane: Lanes, settings: SshSettings) -> dict[str, Any]:
    """The far end answers, and bytes go both ways unharmed."""
    transport = lane(settings)
    hello = transport.call("hello", timeout_s=60)
    data = os.urandom(300_000)
    path = transport.call("put", "some/bytes", data, timeout_s=60)
    assert Path(path).read_bytes() == data
    assert transport.call("read", path, 100_000, timeout_s=60) == data[100_000:]
    with pytest.raises(RemoteError) as caught:
        transport.call("read", "/etc/passwd", timeout_s=60)
    assert caught.value.type == "PermissionError"
    with pytest.raises(RemoteError, match="no method"):
        transport.call("_guard", timeout_s=60)
    return {**hello, **transport.peer}


# Shells and words.


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish", "csh", "tcsh", "ksh"])
def test_any_shell(shell: str, make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    sshd = make_sshd(shell=program)
    folder = sshd.home / "a folder's $name"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    # A link to an interpreter is no environment: it stands for a path that needs every quote there is.
    works(lane, sshd.settings(tmp_path, python=str(folder / "python")))
    works(lane, sshd.settings(tmp_path, python="~/a folder's $name/python"))
    why = refused(lane, sshd.settings(tmp_path, python="~/absent/python"), "python", "no-python")
    assert "absent/python" in why.message


def test_the_command_survives_shells_that_are_not_here(tmp_path: Path) -> None:
    """Between the double quotes there is nothing that sh, csh, fish, cmd or PowerShell reads."""
    settings = SshSettings(
        lane="x", host="h", head="h", home_hash="h", known_hosts=tmp_path, prefix=("wsl", "-e"), python="~/v/python"
    )
    text = bootstrap.command(settings)
    before, quoted, after = text.split('"')
    assert before == "wsl -e ~/v/python -EsS -c "
    assert after == ""
    assert not set(quoted) & set("$`\\!%\n{}&|<>^*?#~")
    assert shlex.split(text)[:3] == ["wsl", "-e", "~/v/python"]


def test_a_prefix_and_its_words(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """As `wsl -e`: a program that runs its arguments without a shell."""
    script = tmp_path / "like wsl"
    script.write_text('#!/bin/sh\n[ "$1" = "-e it\'s" ] || exit 9\nshift\nexec "$@"\n')
    script.chmod(0o755)
    found = works(lane, sshd.settings(tmp_path, prefix=(str(script), "-e it's")))
    assert found["executable"] == sys.executable
    why = refused(lane, sshd.settings(tmp_path, prefix=(str(script), "else")), "agent", "no-agent")
    assert "exit 9" in why.message


def test_modules_in_the_logins_folder_are_not_taken_for_ours(
    make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path
) -> None:
    sshd = make_sshd()
    for name in ("os", "json", "binascii", "hashlib", "core", "lanes", "sitecustomize"):
        (sshd.home / f"{name}.py").write_text(f"raise SystemExit('this is the user\\'s {name}.py')\n")
    sshd.set_login(f"export PYTHONPATH={sshd.home} PYTHONSTARTUP={sshd.home}/os.py")
    works(lane, sshd.settings(tmp_path))


# Noise.


@pytest.mark.parametrize(
    "noise",
    [
        "echo Welcome; echo to this machine >&2",
        "printf 'no newline at the end'",
        "head -c 3000000 /dev/urandom; printf x",
        "head -c 200000 /dev/zero; echo; head -c 200000 /dev/urandom >&2",
        # What was sent, coming back: an echo is no answer.
        'printf "%s" "lab\\001"; sleep 0.1; printf "SSH-2.0-x\\r\\n"',
    ],
    ids=["lines", "no-newline", "binary", "zeros", "like-ours"],
)
def test_noise_before_the_far_end_is_skipped(
    noise: str, make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path
) -> None:
    sshd = make_sshd()
    sshd.set_login(noise)
    assert works(lane, sshd.settings(tmp_path))["noise"] > 0


def test_noise_of_bashrc(make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    sshd = make_sshd(shell=bash)
    (sshd.home / ".bashrc").write_text("echo 'Last login: never'; fortune 2>/dev/null; export LOUD=1\n")
    sshd.set_login(f"export BASH_ENV={sshd.home}/.bashrc")
    assert works(lane, sshd.settings(tmp_path))["noise"] == len("Last login: never\n")
    (sshd.home / ".bashrc").write_text("")
    assert works(lane, sshd.settings(tmp_path))["noise"] == 0


def test_noise_without_end_is_refused_and_quoted(make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    sshd = make_sshd()
    sshd.set_login("yes 'You have \x1b[31mnew mail'")
    why = refused(lane, sshd.settings(tmp_path, noise_limit=1 << 20), "agent", "noise")
    assert "new mail" in why.message
    assert "\x1b" not in why.message
    assert ".bashrc" in why.hint


def test_an_echo_of_what_we_send_is_no_answer(make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    sshd = make_sshd()
    sshd.set_login("", command="head -c 100; exit 0")
    refused(lane, sshd.settings(tmp_path), "agent", "no-agent")
    sshd.set_login("", command="cat")
    transport = lane(sshd.settings(tmp_path, connect_s=2.0))
    with pytest.raises(LinkDown, match="did not start in time"):
        transport.call("hello", timeout_s=60)


# Logins that run nothing.


@pytest.mark.parametrize(
    ("login", "rung", "cause", "said"),
    [
        ("echo 'This account is currently not available.'; exit 1", "agent", "no-login", "not available"),
        ("echo 'sudo: a terminal is required to read the password' >&2; exit 1", "agent", "wants-tty", "terminal"),
        ("echo 'only backups here'; exit 0", "agent", "no-agent", "only backups here"),
        ("exit 3", "agent", "no-agent", "exit 3"),
        ('echo "fish: Unknown command: python3" >&2; exit 127', "python", "no-python", "Unknown command"),
        ("echo 'python3: Command not found.' >&2; exit 1", "python", "no-python", "Command not found"),
        ("echo \"'python3' is not recognized as a command\" >&2; exit 1", "python", "no-python", "recognized"),
        ("exit 126", "python", "no-python", "cannot be run"),
    ],
)
def test_logins_that_run_nothing(
    login: str, rung: str, cause: str, said: str, make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path
) -> None:
    sshd = make_sshd()
    sshd.set_login(login)
    why = refused(lane, sshd.settings(tmp_path), rung, cause)
    assert said in why.message
    assert why.hint
    assert "\n" not in str(why)
    sshd.set_login("")
    lane.made[-1].knock()
    assert lane.made[-1].call("hello", timeout_s=60)


def test_a_login_that_hangs_is_given_up(make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    sshd = make_sshd()
    sshd.set_login("echo one moment; sleep 600")
    transport = lane(sshd.settings(tmp_path, connect_s=2.0))
    with pytest.raises(LinkDown, match="one moment"):
        transport.call("hello", timeout_s=60)


# Pythons.


def test_no_python(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    why = refused(lane, sshd.settings(tmp_path, python="python-that-is-not-here"), "python", "no-python")
    assert "python-that-is-not-here" in why.message
    assert "`python:`" in why.hint


@pytest.mark.parametrize("minor", ["2.7", "3.6", "3.7", "3.8"])
def test_an_old_python_is_named(minor: str, sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    path = python(minor)
    why = refused(lane, sshd.settings(tmp_path, python=path), "python", "old-python")
    assert f" {minor}." in why.message
    assert "3.9" in why.message
    assert "`python:`" in why.hint


@pytest.mark.parametrize("minor", ["3.9", "3.10", "3.12", "3.13"])
def test_a_python_that_will_do(minor: str, sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    found = works(lane, sshd.settings(tmp_path, python=python(minor)))
    assert found["python"].startswith(f"{minor}.")


# The code that is sent.


def agent_folder(settings: SshSettings) -> Path:
    return Path(settings.root) / "agent" / bootstrap.code()[0]


def test_the_code_is_sent_once(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    settings = sshd.settings(tmp_path)
    assert works(lane, settings)["sent"] > 10_000
    assert works(lane, settings)["sent"] == 0
    # What Python leaves beside it does not count; it ran from there.
    assert any(agent_folder(settings).rglob("__pycache__"))
    names = {p.name for p in agent_folder(settings).parent.iterdir()}
    assert names == {agent_folder(settings).name}


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "more", "a-file"])
def test_code_that_is_not_what_we_sent_is_sent_again(damage: str, sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    settings = sshd.settings(tmp_path)
    works(lane, settings)
    lane.made[-1].close()
    folder = agent_folder(settings)
    victim = folder / "lanes" / "agent" / "agent.py"
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:100])
    elif damage == "changed":
        victim.write_text(victim.read_text() + "\nimport evil\n")
    elif damage == "missing":
        victim.unlink()
    elif damage == "more":
        (folder / "json.py").write_text("")
    else:
        shutil.rmtree(folder)
        folder.write_text("")
    assert works(lane, settings)["sent"] > 10_000
    assert boot.tree_digest(str(folder)) == folder.name
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "nothing is left of the damaged one"


def test_a_compiled_file_that_was_cut_harms_nobody(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """Python leaves such a file on a full disk, and would fail on it for ever."""
    settings = sshd.settings(tmp_path)
    works(lane, settings)
    lane.made[-1].close()
    compiled = sorted(agent_folder(settings).rglob("*.pyc"))
    sources = sorted(agent_folder(settings).rglob("*.py"))
    assert len(compiled) == len(sources), "all of them, so that no runner has to write one"
    for path in compiled:
        path.write_bytes(path.read_bytes()[:-20])
    assert works(lane, settings)["sent"] == 0
    for path in compiled:
        marshal.loads(path.read_bytes()[16:])


def test_the_root_is_closed_to_others(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    settings = sshd.settings(tmp_path)
    Path(settings.root).mkdir(mode=0o755)
    works(lane, settings)
    for path in (Path(settings.root), *Path(settings.root).rglob("*")):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            assert not mode & 0o022, path
    assert Path(settings.root).stat().st_mode & 0o777 == 0o700
    assert (Path(settings.root) / "owner.json").stat().st_mode & 0o777 == 0o600


def test_a_root_below_the_home(make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    sshd = make_sshd()
    for root in ("~/lane one", "relative/lane"):
        found = works(lane, sshd.settings(tmp_path, root=root))
        assert found["root"] == str(sshd.home / root.removeprefix("~/"))


def test_a_root_that_cannot_be(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    why = refused(lane, sshd.settings(tmp_path, root=str(tmp_path / "file" / "lane")), "agent", "root")
    assert "cannot be made" in why.message
    assert "`root:`" in why.hint


def test_a_very_long_root(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """Longer than a socket's path may be: it lies in a short folder of our own, and wakes a waiting poll."""
    settings = sshd.settings(tmp_path, root=str(tmp_path / ("x" * 100) / ("y" * 100)))
    short = serve._socket_path(Path(settings.root) / "heads" / settings.home_hash / settings.lane)
    assert short is not None
    try:
        works(lane, settings)
        assert stat.S_ISSOCK(os.stat(short).st_mode)
        assert os.stat(os.path.dirname(short)).st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(os.path.dirname(short), ignore_errors=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting needs root: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, leave: int = 0) -> Path:
    filler = place / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(fd, bytes(4096))
    os.ftruncate(fd, max(0, os.fstat(fd).st_size - leave))
    os.close(fd)
    return filler


@pytest.mark.root
def test_a_full_disk(sshd: Sshd, lane: Lanes, tmp_path: Path, small_disk: Path) -> None:
    settings = sshd.settings(tmp_path, root=str(small_disk / "lane"))
    filler = fill(small_disk, leave=64 << 10)
    why = refused(lane, settings, "agent", "disk-full")
    assert str(small_disk) in why.message
    assert "free" in why.hint
    assert not list((small_disk / "lane" / "agent").iterdir()), "nothing half written is left"
    filler.unlink()
    lane.made[-1].knock()
    assert lane.made[-1].call("hello", timeout_s=60)


@pytest.mark.root
def test_a_disk_that_has_become_full_does_not_keep_us_out(
    sshd: Sshd, lane: Lanes, tmp_path: Path, small_disk: Path
) -> None:
    """Else nobody could cancel what fills it."""
    settings = sshd.settings(tmp_path, root=str(small_disk / "lane"))
    assert lane(settings).call("hello", timeout_s=60)
    lane.made[-1].close()
    fill(small_disk)
    assert lane(settings).call("hello", timeout_s=60)


@pytest.mark.root
def test_no_room_for_compiled_files(sshd: Sshd, lane: Lanes, tmp_path: Path, small_disk: Path) -> None:
    """Python would leave cut ones behind; there are none then, now or at the next connection."""
    settings = sshd.settings(tmp_path, root=str(small_disk / "lane"))
    fill(small_disk, leave=len(bootstrap.code()[2]) * 3 // 2)
    for _ in range(2):
        assert lane(settings).call("hello", timeout_s=60)
        lane.made[-1].close()
        assert not list(Path(settings.root).rglob("*.pyc"))


# Nothing that prints harms the channel.


def test_what_the_agents_code_prints_goes_elsewhere(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    settings = sshd.settings(tmp_path)
    text = """
        import os, subprocess, sys
        class Store:
            def __init__(self, root):
                print("made below", root)
            def shout(self):
                print("to stdout")
                sys.stderr.write("to stderr\\n")
                os.write(1, b"to descriptor 1\\n")
                subprocess.run(["sh", "-c", "echo of a child; echo of a child >&2"])
                return "done"
    """
    with shipped_store(text):
        transport = lane(settings)
        assert transport.call("shout", timeout_s=60) == "done"
        assert transport.call("hello", timeout_s=60)
        assert transport.link()["up"]
    log = (Path(settings.root) / "heads" / settings.home_hash / "mini" / "serve.log").read_text()
    for line in ("to descriptor 1", "of a child", "to stderr"):
        assert line in log


def test_what_is_printed_while_the_code_loads_goes_elsewhere(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    with shipped({"lanes/agent/serve.py": lambda old: old + "\nprint('loaded')\nsys.stdout.flush()\n"}):
        works(lane, sshd.settings(tmp_path))


@pytest.mark.parametrize("line", ["import no_such_module", "1 / 0", "raise SystemExit(0)", "def"])
def test_code_that_does_not_load_is_told(line: str, sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """As with a Python that lacks a module of the standard library."""
    transport = lane(sshd.settings(tmp_path))
    with shipped({"lanes/agent/serve.py": lambda old: f"{line}\n{old}".replace("from __future__", "#")}):
        with pytest.raises((LinkDown, LinkRefused)) as caught:
            transport.call("hello", timeout_s=60)
        if "import" in line:
            assert isinstance(caught.value, LinkRefused)
            assert caught.value.cause == "incomplete-python"
            assert "no_such_module" in caught.value.message
