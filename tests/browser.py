"""A headless Chromium, asked over a pipe: what a page says on its console, whether its pictures load, how wide it is."""

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_SECONDS = 60


def executable():
    """The browser's path; None where there is none and the environment does not ask for one."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    asked = os.environ.get("SNN_SPARSITY_REQUIRE_BROWSER") == "1"
    assert found or not asked, f"SNN_SPARSITY_REQUIRE_BROWSER=1, but none of {', '.join(BROWSERS)} is installed"
    return found


class Browser:
    """A browser with one empty tab; use as a context manager."""

    def __enter__(self):
        # Processes of the browser's own may still write into it while it is removed.
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()
        options = f"--headless --no-sandbox --disable-gpu --no-first-run --user-data-dir={self.profile.name} --remote-debugging-pipe"
        # The browser reads commands from descriptor 3 and answers on 4.
        command = f"exec {executable()} {options} 3<&{theirs_in} 4>&{theirs_out} >/dev/null 2>&1"
        self.process = subprocess.Popen(["bash", "-c", command], pass_fds=[theirs_in, theirs_out], start_new_session=True)
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.session, self.events, self.rest = 0, None, [], b""
        tab = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.to)
        os.close(self.back)
        self.profile.cleanup()

    def open(self, path, width, dark=False):
        """Show a file in a window of this width, in light or in dark."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.ask("Page.navigate", url=Path(path).resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)["result"]["value"]

    def complaints(self):
        """What went wrong since the page was opened: console messages, exceptions, and anything that was loaded from the network."""
        self.evaluate("1")
        said = [
            e["params"] for e in self.events if e["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        ]
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return said + [url for url in asked if not url.startswith(("file:", "data:"))]

    def ask(self, method, **params):
        """Send a command and return its result; what happens meanwhile is kept in ``events``."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def receive(self):
        """The next message."""
        while b"\0" not in self.rest:
            assert select.select([self.back], [], [], PATIENCE_SECONDS)[0], "the browser says nothing"
            more = os.read(self.back, 1 << 16)
            assert more, "the browser ended"
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)
