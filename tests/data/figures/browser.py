"""A headless Chromium: what a page from disk says to a script, and how it looks after it."""

import html
import io
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
LIMIT = 180  # seconds after which a page hangs
# A window has at least 500 px, a frame in it any width. The page tells it what the script returns.
WINDOW = """<body style="margin: 0"><iframe src="{page}" width="{width}" height="800"
style="border: 0"></iframe><pre id="answer"></pre><script>
onmessage = event => {{ document.getElementById("answer").textContent = event.data; }};
</script>"""
FIRST = """<script>
const failed = [];
addEventListener("error", event => failed.push(event.message || event.target.src), true);
addEventListener("securitypolicyviolation", event => failed.push(event.blockedURI));
</script>"""
LAST = """<script>addEventListener("load", async () => {{
  const returned = await (async () => {{ {script} }})();
  parent.postMessage(JSON.stringify({{returned, failed}}), "*");
}});</script></body>"""


def look(page: Path, script: str, width: int = 1280, dark: bool = False) -> tuple[Any, Image.Image]:
    """What an asynchronous script returns in a copy of the page, `width` px wide, and a picture.

    Nothing may have failed there: no error in a script, nothing missing, nothing forbidden. Without
    Chromium the test is skipped.
    """
    if not (chromium := next(filter(None, map(shutil.which, NAMES)), None)):
        pytest.skip("Chromium is not installed here")
    copy, window = page.with_name("copy.html"), page.with_name("window.html")
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{FIRST}", 1)
    head, end = text.rsplit("</body>", 1)
    copy.write_text(head + LAST.format(script=script) + end, encoding="utf-8")
    window.write_text(WINDOW.format(page=copy.name, width=width), encoding="utf-8")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        shot = Path(place, "shot.png")
        command = [chromium, *FLAGS, f"--user-data-dir={place}", f"--screenshot={shot}"]
        command += ["--dump-dom", "--virtual-time-budget=20000", f"--window-size={width},800"]
        command += [f"--blink-settings=preferredColorScheme={int(not dark)}", window.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        picture = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")
    answer = re.search(r'<pre id="answer">(.+?)</pre>', done.stdout, re.DOTALL)
    assert answer, f"the page has not answered: {done.stdout[-500:]} {done.stderr[-500:]}"
    said = json.loads(html.unescape(answer[1]))
    assert said["failed"] == []
    return said.get("returned"), picture
