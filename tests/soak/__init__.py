"""Hours of use: sessions of every peer begin, work, break and end, and nothing may be left behind.

``python -m tests.soak --minutes N``, or ``nox -s soak -- --minutes N``.  It is no test of pytest's.

The time is cut into *rounds*.  In a round every *lane* (``lanes.py``) runs sessions with one peer
in one role, one after the other: streams that finish, streams that either side resets, sends that
are cancelled, sessions that are drained, closed, broken or killed, peers that are started anew.
At the end of a round no session is left, and ``account.py`` looks at what should not be left
either: streams, slots, budgets, tasks, file descriptors, objects, memory.
"""
