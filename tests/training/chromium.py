"""A real browser for tests: Chromium by its debugging pipe, with nothing to install."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess

BINARY = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
_FLAGS = (
    "--headless --remote-debugging-pipe --no-sandbox --disable-dev-shm-usage "
    "--hide-scrollbars"
)


class Page:
    """A tab, spoken to in the DevTools protocol.

    Attributes:
      events: all that the tab has reported, in order: method and params.
    """

    def __init__(self, read, write):
        self._read, self._write = read, write
        self._buffer, self._session, self._calls = b"", {}, 0
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": found["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Asks, and waits for the answer."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params}
        os.write(self._write, json.dumps(message | self._session).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._calls:
            self.events.append((answer["method"], answer["params"]))
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path, width=1280, scheme="light"):
        """Loads the file in a window of this width, to its end."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=wanted)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in (method for method, _ in self.events):
            event = self._receive()
            self.events.append((event["method"], event["params"]))

    def value(self, expression):
        """What the JavaScript expression is in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def _receive(self):
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], 120)[0], "Chromium is silent"
            more = os.read(self._read, 1 << 20)
            assert more, "Chromium has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def browser(profile):
    """A ``Page`` of a browser whose files are in the directory `profile`."""
    with contextlib.ExitStack() as stack:

        def pipe():
            low = os.pipe()
            # Above 10: the browser wants its ends to be 3 and 4.
            ends = [fcntl.fcntl(x, fcntl.F_DUPFD_CLOEXEC, 10) for x in low]
            for x in low:
                os.close(x)
            return ends

        (its_read, write), (read, its_write) = pipe(), pipe()
        for mine in (write, read):
            stack.callback(os.close, mine)
        command = (
            f'exec "$0" {_FLAGS} --user-data-dir="$1" 3<&{its_read} 4>&{its_write}'
        )
        process = subprocess.Popen(
            ["bash", "-c", command, BINARY, str(profile)],
            pass_fds=(its_read, its_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        os.close(its_read)
        os.close(its_write)
        yield Page(read, write)
