"""The documentation: pages for Sphinx, and the programs that draw its pictures."""
