/* GOAWAY and several streams: what its last id says is safe to try again was never processed.
 *
 * Side 0, ours, opens streams; the acceptor takes them, answers some, and goes away at any moment.
 * Go v2 and Rust put the id of the latest SYN into GOAWAY, ours puts the highest.
 */

#ifndef STREAMS
#define STREAMS 3
#endif
#ifndef CAP
#define CAP 2
#endif

mtype = { SYN, DATA, RST, GOAWAY };

chan there = [CAP] of { mtype, byte };
chan back = [CAP] of { mtype, byte };

bool syn_sent[STREAMS + 1], heard[STREAMS + 1], over[STREAMS + 1], retry[STREAMS + 1];
bool processed[STREAMS + 1], answered[STREAMS + 1];
byte refused; /* the stream whose RST is due */
byte last;
bool gone, exact = true;

/* May the SYN of stream s be the next? */
#ifdef SYNS_IN_ANY_ORDER
#define NEXT(s) true
#else
#define NEXT(s) (s == 1 || syn_sent[s - 1])
#endif

proctype opener() {
    byte s, id;
end:
    do
    :: atomic {
        nfull(there) && !gone ->
        s = 1;
        do
        :: s < STREAMS -> s++
        :: break
        od;
        if
        :: !syn_sent[s] && NEXT(s) -> syn_sent[s] = true; there!SYN, s
        :: else
        fi;
        s = 0
       }
    :: atomic { back?DATA, id -> if :: !over[id] -> heard[id] = true :: else fi; id = 0 }
    :: atomic { /* refused: never processed, if nothing was received on it */
        back?RST, id ->
        if
        :: !over[id] && !heard[id] -> over[id] = true; retry[id] = true; assert(!processed[id])
        :: else -> over[id] = true
        fi;
        id = 0
       }
    :: atomic {
        back?GOAWAY, id ->
        gone = true;
        /* A stream above it that was heard of shows that this peer's id is not the highest. */
        s = id + 1;
        do
        :: s <= STREAMS -> if :: syn_sent[s] && heard[s] -> exact = false :: else fi; s++
        :: else -> break
        od;
        s = id + 1;
        do
        :: s <= STREAMS ->
            if
            :: syn_sent[s] && !heard[s] && !over[s] ->
                over[s] = true;
                if
                :: exact -> retry[s] = true; assert(!processed[s])
                :: else
                fi
            :: else
            fi;
            s++
        :: else -> break
        od;
        s = 0; id = 0
       }
    od
}

proctype acceptor() {
    byte id, s;
    bool goes;
end:
    do
    :: atomic {
        !refused && nempty(there) -> there?SYN, id;
        if
        :: goes -> refused = id
        :: else ->
            processed[id] = true;
#ifdef HIGHEST_ID
            last = (id > last -> id : last)
#else
            last = id
#endif
        fi;
        id = 0
       }
    :: atomic { refused && nfull(back) -> back!RST, refused; refused = 0 }
    :: atomic {
        nfull(back) ->
        s = 1;
        do
        :: s < STREAMS -> s++
        :: break
        od;
        if
        :: processed[s] && !answered[s] -> answered[s] = true; back!DATA, s
        :: else
        fi;
        s = 0
       }
    :: atomic { !goes && nfull(back) -> goes = true; back!GOAWAY, last }
    od
}

init { atomic { run opener(); run acceptor() } }
