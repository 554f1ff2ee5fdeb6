"""The drawings of the documentation, as programs: `python -m docs.pictures` writes them all."""
