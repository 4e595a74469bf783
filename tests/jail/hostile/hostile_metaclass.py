# expect: died
"""A metaclass that ends the process while it is looked for verbs."""
import os


class Meta(type):
    def __getattribute__(cls, name):
        os._exit(3)


class Hostile(metaclass=Meta):
    pass
