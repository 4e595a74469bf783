"""The report in a real browser: headless Chromium, at desktop and phone width."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from cloudchamber import study

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
)
PROBE = """<script>document.title = [document.documentElement.scrollWidth, innerWidth, document.querySelectorAll('svg.strip').length,
document.querySelectorAll('g[transform] rect').length].join(' ')</script></body>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1200, 500])
def test_fits_the_window_and_draws_its_pictures(width, tmp_path):
    path = study("spot", None, ["smoke"], 2).report(tmp_path / "spot.html")
    path.write_text(path.read_text().replace("</body>", PROBE))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1200", "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    content, window, strips, episodes = map(int, dom.split("<title>")[1].split("</title>")[0].split())
    assert content <= window, "the page scrolls sideways"
    assert strips == 10 and episodes > 20
