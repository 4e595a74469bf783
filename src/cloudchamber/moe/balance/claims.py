"""The headline claims on expert balancing, and how each is reproduced here."""

CLAIMS = ()
