"""Models of the protocol for Spin, which looks at every order in which things can happen.

``python -m tests.model``, or ``nox -s model``: it needs ``spin`` and a C compiler.
"""
