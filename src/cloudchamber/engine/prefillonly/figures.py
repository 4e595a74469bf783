"""The report's pictures."""


def figures(results):
    return []
