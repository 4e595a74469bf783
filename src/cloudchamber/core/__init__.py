"""The spine every problem module stands on; it knows no problem itself."""

RESERVED_NAMES = (
    "run",
    "ask",
    "tell",
    "resume",
    "show",
    "export",
    "import",
    "red-team",
    "mcp",
    "dashboard",
)  # of `chamber evolve`: no study's
