"""Run every example as a user would, one after the other; stop at the first that fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
NOT_PROGRAMS = ("my_policy.py", "spot_train.py")  # a policy and a job, run by the others


def main() -> int:
    """Return 0 if all examples ended with 0."""
    for path in sorted(EXAMPLES.glob("*.py")):
        if path.name in NOT_PROGRAMS:
            continue
        print(f"-- {path.name}", flush=True)
        start = time.perf_counter()
        if code := subprocess.run([sys.executable, path], cwd=EXAMPLES.parent, check=False).returncode:
            print(f"{path.name} ended with {code}", file=sys.stderr)
            return code
        print(f"   {time.perf_counter() - start:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
