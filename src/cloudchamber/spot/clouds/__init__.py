"""Clouds behind the runtime: this machine (processes, signals, S3) and, by SkyPilot, the real ones."""
