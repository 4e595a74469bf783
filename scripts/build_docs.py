"""Build the documentation, strictly: warnings, missing pages and broken links inside the site are errors."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"


class Links(HTMLParser):
    """Collects the ids and the relative links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element defines and where it points."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.ids.add(value)
            elif name in ("href", "src") and value is not None and not re.match(r"[a-z]+:|//|data:", value):
                self.links.append(value)


def main() -> int:
    """Return 0 if the site was built without a warning and every link leads somewhere."""
    shutil.rmtree(SITE, ignore_errors=True)
    built = subprocess.run(
        [Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(built.stdout, built.stderr, sep="")
    if built.returncode:
        return built.returncode
    problems = broken_links()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.name}/, {len(problems)} broken links")
    return bool(problems)


def broken_links() -> list[str]:
    """Every relative link of the site that leads nowhere, with the page it is on."""
    pages = {}
    for path in SITE.rglob("*.html"):
        pages[path] = Links()
        pages[path].feed(path.read_text(encoding="utf-8"))
    problems = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            target, _, fragment = link.partition("#")
            file = (path.parent / target.partition("?")[0]).resolve() if target else path.resolve()
            file = file / "index.html" if file.is_dir() else file
            if not file.exists():
                problems.append(f"{path.relative_to(SITE)}: no such file: {link}")
            elif fragment and file in pages and fragment not in pages[file].ids and not fragment.startswith("__"):
                problems.append(f"{path.relative_to(SITE)}: no such heading: {link}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
