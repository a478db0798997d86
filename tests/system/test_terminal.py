"""A conversation as a person has it: on a terminal."""

import os
import pty
import re
import select
import subprocess
import termios
import time

import processes
import pytest


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *arguments):
        ours, theirs = pty.openpty()
        settings = termios.tcgetattr(theirs)
        settings[3] &= ~termios.ECHO  # what is read is what the program wrote
        termios.tcsetattr(theirs, termios.TCSANOW, settings)
        self.popen = subprocess.Popen(
            [str(processes.TROUPE), *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.fd, self.text = ours, ""

    def read_until(self, words, timeout_s=processes.START_S):
        """What came since the last call, up to and with `words`; None: up to its end."""
        end = time.monotonic() + timeout_s
        while words is None or words not in self.text:
            readable, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert readable, f"not within {timeout_s} s: {words!r}; only {self.text!r}"
            try:
                piece = os.read(self.fd, 4096)
            except OSError:  # how a terminal says that nobody is left on the other side
                piece = b""
            if not piece:
                assert words is None, f"ended before {words!r}: {self.text!r}"
                break
            self.text += piece.decode(errors="replace").replace("\r\n", "\n")
        cut = len(self.text) if words is None else self.text.index(words) + len(words)
        found, self.text = self.text[:cut], self.text[cut:]
        return found

    def type(self, text):
        os.write(self.fd, text.encode())

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        os.close(self.fd)


@pytest.mark.parametrize("last", ["/quit\n", "\x04"], ids=["quit", "control-D"])
def test_chat_on_a_terminal_takes_turn_after_turn(last):
    processes.require_files()
    terminal = Terminal("chat", "--model", processes.MODEL, "--max-tokens", 40)
    try:
        assert terminal.read_until("\n> ") == "Type a message; /quit or Ctrl-D ends.\n\n> "
        for question, word in [("What is the capital of France?", "Paris"), ("And of Italy?", "Italy")]:
            terminal.type(question + "\n")
            answer = terminal.read_until("\n> ")
            assert word in answer, answer
            assert re.search(r"\n\[\d+ tokens, [\d.]+ tokens/s\]\n\n> $", answer), answer
        terminal.type(last)
        assert terminal.read_until(None).strip() == ""
        assert terminal.popen.wait(processes.STOP_S) == 0
    finally:
        terminal.close()
