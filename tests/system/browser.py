"""Headless Chromium, driven by its DevTools protocol over a pair of pipes (--remote-debugging-pipe): each message is
JSON and ends with a zero byte, commands go into descriptor 3, answers and events come out of 4."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

FLAGS = """--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions
    --disable-background-networking --disable-component-update --disable-sync --mute-audio --hide-scrollbars
    --remote-debugging-pipe""".split()
PATIENCE_S = 30


class Browser:
    """One process; `page` opens a tab of its own."""

    def __init__(self, folder):
        program = shutil.which("chromium")
        assert program, "chromium is missing: ./dev test installs it"
        theirs, self.write_fd = os.pipe()
        self.read_fd, theirs_too = os.pipe()
        # Above 3 and 4, so that one redirection does not close what the other needs.
        pair = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs, theirs_too)]
        command = 'in=$1 out=$2; shift 2; eval "exec \\"\\$@\\" 3<&$in 4>&$out"'
        self.log = open(folder / "chromium.log", "wb")
        self.popen = subprocess.Popen(
            ["bash", "-c", command, "chromium", *map(str, pair), program, *FLAGS, f"--user-data-dir={folder}/profile"],
            pass_fds=pair,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        for fd in (theirs, theirs_too, *pair):
            os.close(fd)
        self.bytes = b""
        self.n_sent = 0
        self.pages = {}

    def read(self, timeout_s):
        """The next message; None when none came in time."""
        end = time.monotonic() + timeout_s
        while b"\0" not in self.bytes:
            ready = select.select([self.read_fd], [], [], max(0, end - time.monotonic()))[0]
            if not ready:
                return None
            part = os.read(self.read_fd, 1 << 16)
            assert part, f"chromium ended: {open(self.log.name, errors='replace').read()[-2000:]}"
            self.bytes += part
        message, self.bytes = self.bytes.split(b"\0", 1)
        return json.loads(message)

    def take(self, timeout_s):
        """Handles one message; gives it."""
        message = self.read(timeout_s)
        page = self.pages.get(message.get("sessionId")) if message else None
        if page and "method" in message:
            page.on_event(message["method"], message["params"])
        return message

    def call(self, method, session=None, **parameters):
        self.n_sent += 1
        command = {"id": self.n_sent, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        os.write(self.write_fd, json.dumps(command).encode() + b"\0")
        end = time.monotonic() + PATIENCE_S
        while True:
            message = self.take(end - time.monotonic())
            assert message, f"chromium did not answer {method} within {PATIENCE_S} s"
            if message.get("id") == self.n_sent:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def page(self, url, width, height=800, dark=False):
        return Page(self, url, width, height, dark)

    def close(self):
        try:
            self.call("Browser.close")
            self.popen.wait(PATIENCE_S)
        finally:
            self.popen.kill()
            self.popen.wait()
            for fd in (self.read_fd, self.write_fd):
                os.close(fd)
            self.log.close()


class Page:
    """A tab. What its console says, what it fails to load and what its policy refuses is kept in `faults`."""

    def __init__(self, browser, url, width, height, dark):
        self.browser, self.faults = browser, []
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.pages[self.session] = self
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def on_event(self, method, parameters):
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.faults.append(" ".join(str(a.get("value", a)) for a in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.faults.append(f"{parameters['entry']['text']} ({parameters['entry'].get('url')})")

    def js(self, expression):
        """The value of an expression, as JSON has it."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait(self, expression, timeout_s=PATIENCE_S):
        """Until the expression is true; gives its value."""
        end = time.monotonic() + timeout_s
        while True:
            value = self.js(expression)
            if value:
                return value
            assert time.monotonic() < end, f"still not true after {timeout_s} s: {expression}; faults: {self.faults}"
            self.browser.take(0.02)

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)})?.textContent")

    def type(self, text):
        """As a keyboard would, into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key, code, **parameters):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **parameters)

    def press_enter(self):
        self.press("Enter", 13, text="\r")

    def click(self, selector):
        """With the mouse, in the middle of the element: what covers it would get the click."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.js(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def fits(self):
        """Nothing is wider than the window."""
        return self.js("document.documentElement.scrollWidth <= window.innerWidth")

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
