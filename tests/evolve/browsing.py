"""A headless Chromium driven over its debugging pipe: what a page shows, in which window, and how it looks."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
LAUNCH = """
import fcntl, os, sys
high = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[1:3]]
os.dup2(high[0], 3), os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""  # the browser speaks on descriptors 3 and 4


class Browser:
    """One window; ``with`` ends the process."""

    def __init__(self, profile, width=1200, height=900, theme="light"):
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        command = [sys.executable, "-c", LAUNCH, str(read), str(write), CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(read)
        os.close(write)
        self._numbers, self._rest, self._session, self.messages = itertools.count(1), b"", None, []
        target = next(each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)

    def call(self, method, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                more = os.read(self._in, 1 << 20)
                assert more, "the browser ended"
                self._rest += more
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.messages.append(answer)

    def goto(self, url):
        self.call("Page.navigate", url=url)

    def run(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not (value := self.run(f"(() => {{ try {{ return {expression} }} catch (error) {{ return null }} }})()")):
            assert time.monotonic() < end, f"never came true: {expression}; {self.problems()}"
            time.sleep(0.05)
        return value

    def problems(self):
        """Exceptions, refused content and other errors that the page met."""
        found = []
        for each in self.messages:
            if each.get("method") == "Runtime.exceptionThrown":
                found.append(each["params"]["exceptionDetails"])
            if each.get("method") == "Log.entryAdded" and each["params"]["entry"]["level"] == "error":
                found.append(each["params"]["entry"]["text"])
        return found

    def hosts(self):
        """Where the page sent requests to."""
        return {
            each["params"]["request"]["url"].split("/")[2]
            for each in self.messages
            if each.get("method") == "Network.requestWillBeSent" and not each["params"]["request"]["url"].startswith("data:")
        }

    def picture(self, path, *, whole=True):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
