"""The golden session vectors, played to any muxado peer from outside.

``trio_muxado/vectors`` says in JSON what an endpoint has to answer, and ``docs/specification``
why.  An *echo peer* is a program that can be tried without being changed for it: it accepts every
stream, sends back what it reads, and ends its direction when the opener has ended its own.  This
package plays the peer of such a program over one connection for each vector, and says what came
that is different.

It has a codec of its own and knows nothing of the library's: two of them that agree say more than
one that agrees with itself.
"""

from .peer import play_all
from .player import Result, play
from .roles import echo_vectors, mirrored
from .vectors import Vector, load

__all__ = ["Result", "Vector", "echo_vectors", "load", "mirrored", "play", "play_all"]
