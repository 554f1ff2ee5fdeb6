"""The muxado protocol, both versions, free of I/O.

Bytes come in and events go out; calls come in and bytes go out.  Nothing here knows of
trio, of sockets, of clocks (a time is an argument) or of tasks, so everything can be
driven by a plain loop, a property test or a fuzzer, one byte at a time.
"""
