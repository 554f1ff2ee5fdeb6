"""The same small service, written for each framework that people serve over sessions."""
