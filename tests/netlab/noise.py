"""What real machines print before a program gets to speak, as shell scripts and ~/.bashrc texts."""

from __future__ import annotations

# Words, colours, a bell, bytes that are no UTF-8, a NUL, a line that never ends, a terminal that is none.
NOISY_BASHRC = r"""
echo "Welcome to Ubuntu 22.04.4 LTS (GNU/Linux 5.15.153.1-microsoft-standard-WSL2 x86_64)"
printf '\033[1;32m * \033[0mSystem load: 0.52\a\n\377\376\000\001 bytes\n'
echo "mesg: ttyname failed: Inappropriate ioctl for device" >&2
for i in 1 2 3 4 5 6 7 8; do printf '%01000d' 0; done
printf '{"id": 1, "ok": true} no newline here'
"""

# `wsl -e PROGRAM ...`: a warning in UTF-16 as the real one prints it, then the program.
WSL = r"""#!/bin/sh
printf 'w\000s\000l\000:\000 \000F\000a\000i\000l\000e\000d\000\r\000\n\000'
echo 'wsl: A localhost proxy configuration was detected but not mirrored into WSL.' >&2
[ "$1" = -e ] || { echo "wsl: say -e" >&2; exit 2; }
shift
exec "$@"
"""

# A login that never gets to the program: prints for ever.
ENDLESS = "#!/bin/sh\nexec yes noise without end\n"

# `garble PROGRAM ...`: passes on what goes in and out, but for one fault that ~/garble names, such as `down flip 2000`
# (way, kind, bytes of that way that pass first). It happens once: the file is gone when it has been read.
# Kinds: flip a bit; lose a byte; double 100 bytes; say something of its own; eof; hang.
GARBLE = r"""#!/opt/lane/bin/python3
import os, subprocess, sys, threading, time
way, kind, after = "", "", 0
try:
    with open("/root/garble") as f:
        way, kind, after = f.read().split()
    os.unlink("/root/garble")
except OSError:
    pass
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

def harm(data, at):
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    if kind == "lose":
        return data[:at] + data[at + 1 :]
    if kind == "double":
        return data[:at] + data[at : at + 100] + data[at:]
    if kind == "say":
        return data[:at] + b"garble: a message from the machine\n" + data[at:]
    return None

def write(fd, data):
    while data:
        data = data[os.write(fd, data):]

def pump(name, source, sink):
    passed = 0
    while True:
        data = os.read(source, 65536)
        if not data:
            break
        size = len(data)
        if name == way and passed <= int(after) < passed + size:
            at = int(after) - passed
            harmed = harm(data, at)
            if harmed is None:
                write(sink, data[:at])
                if kind == "eof":
                    os._exit(0)
                time.sleep(3600)
            data = harmed
        write(sink, data)
        passed += size
    if name == "down":
        os._exit(child.wait())
    child.stdin.close()

threading.Thread(target=pump, args=("up", 0, child.stdin.fileno()), daemon=True).start()
pump("down", child.stdout.fileno(), 1)
"""
