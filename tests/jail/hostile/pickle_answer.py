# expect: type
"""Answers with an object that runs code when unpickled."""
import os

from tests.jail.play import Guess



class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        class Evil:
            def __reduce__(self):
                return (os.system, ("touch /tmp/evil",))
        return Evil()
