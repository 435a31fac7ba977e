"""Runs a program in a terminal of its own, and presses keys.

watch.py COLUMNS ROWS STEPS PROGRAM ARGUMENT...; STEPS is a JSON list of
  ["expect", TEXT]   wait until the program draws this
  ["send", KEYS]     press these
  ["signal", NUMBER]
  ["screen"]         note how much was drawn up to now
Prints one JSON object: what was drawn, the notes, the exit status, and whether the terminal is as it was.
"""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

PATIENCE = 80

columns, rows, steps, program = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
before = termios.tcgetattr(slave)
environment = {**os.environ, "TERM": "xterm-256color"}
environment.pop("COLUMNS", None)
child = subprocess.Popen(program, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment)
end = time.monotonic() + PATIENCE
drawn, seen, notes = b"", 0, []


def draw(wait):
    """Reads what is there; false once there is nothing."""
    global drawn
    if not select.select([master], [], [], wait)[0]:
        return False
    drawn += os.read(master, 65536)
    return True


try:
    for step, *argument in steps:
        if step == "expect":
            wanted = argument[0].encode()
            while wanted not in drawn[seen:]:
                if time.monotonic() > end or child.poll() is not None and not draw(0):
                    sys.exit(f"{argument[0]!r} was not drawn: {drawn!r}")
                draw(0.05)
            seen = drawn.index(wanted, seen) + len(wanted)
        elif step == "send":
            os.write(master, argument[0].encode())
        elif step == "signal":
            child.send_signal(argument[0])
        elif step == "screen":
            # What is drawn is drawn in one go.
            while draw(0.2):
                pass
            notes.append(drawn.decode())
    while child.poll() is None:
        if time.monotonic() > end:
            sys.exit(f"it does not end: {drawn!r}")
        draw(0.05)
    while draw(0):
        pass
finally:
    if child.poll() is None:
        child.send_signal(signal.SIGKILL)
        child.wait()
restored = termios.tcgetattr(slave) == before
print(json.dumps({"drawn": drawn.decode(), "notes": notes, "code": child.returncode, "restored": restored}))
