"""``python -m cloudchamber`` is ``chamber``."""

from cloudchamber.cli import main

if __name__ == "__main__":
    main()
