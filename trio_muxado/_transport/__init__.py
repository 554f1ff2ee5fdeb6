"""What a session does with its transport, which may be any stream and raise anything.

Nothing here knows frames.
"""
