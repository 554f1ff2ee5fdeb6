/* One stream between two sides: credit, FIN, RST, GOAWAY, and a transport that may be cut.
 *
 * Side 0 is ours and keeps our rules. Side 1 is PEER: ours as well, or a known peer with its
 * defects. docs/proofs.md says what is checked; __main__.py has the configurations.
 *
 * Each side has an application, a reader and a writer, as a session has tasks. What waits to be
 * sent is counted, not queued: that is how the core keeps it. The two directions of the transport
 * are bounded channels. Payloads are counted in units; a frame carries one.
 */

#define OURS 0
#define GO_V1 1
#define GO_V2 2
#define GO_V2_OLD 3 /* 2.0.1 and before */
#define RUST 4

#ifndef PEER
#define PEER OURS
#endif
#ifndef OPENER
#define OPENER 0 /* the side that opens the stream */
#endif
#ifndef M
#define M 2 /* units that an application sends, at most */
#endif
#ifndef W
#define W 1 /* the initial window */
#endif
#ifndef CAP
#define CAP 1 /* frames that one direction of the transport holds */
#endif
#ifndef GROWN
#define GROWN W /* what our side makes of its receive window, at once */
#endif

/* Credit is due when half of the *initial* window was read. */
#ifdef THRESHOLD_OF_THE_GROWN_WINDOW
#define DUE(i) (i == 0 -> (GROWN + 1) / 2 : 1)
#else
#define DUE(i) (i == 0 -> (W + 1) / 2 : 1) /* the known peers grant each read */
#endif

#define IS_GO(i) (i == 1 && (PEER == GO_V1 || PEER == GO_V2 || PEER == GO_V2_OLD))
#define IS_GO_V2(i) (i == 1 && (PEER == GO_V2 || PEER == GO_V2_OLD))
#define IS_RUST(i) (i == 1 && PEER == RUST)
#define IS_OURS(i) (i == 0 || PEER == OURS)

/* Go v2 and Rust send SYN with what is written first. */
#define OPENS(i) (IS_OURS(i) || PEER == GO_V1 || queued[i] > 0 || fin_due[i])
/* A stream that Rust opens and never writes to is not seen by anybody. */
#define LEAST(i) (IS_RUST(i) && OPENER == 1 -> 1 : 0)

#ifdef READER_WAITS
#define BLOCKED(i) (rst_due[i])
#else
#define BLOCKED(i) false
#endif

mtype = { SYN, DATA, WNDINC, RST, GOAWAY, IGNORED };

/* A frame: kind; units, increment, or the last id that GOAWAY tells; FIN. */
chan wire[2] = [CAP] of { mtype, byte, bool }; /* wire[i]: from side i */

mtype = { NONE, LIVE, CLOSED }; /* what side i knows of the stream */
mtype = { GRACEFUL, CUTTING, PATIENT }; /* what an application is like, see below */
mtype = { RUNNING, ENDED, BROKEN };     /* what it was told about the other direction */

mtype stream[2] = NONE;
mtype told[2] = RUNNING;

/* To be sent by side i. */
bool syn_due[2], fin_due[2], rst_due[2], goaway_due[2], ignored_due[2];
byte queued[2], credit_due[2], goaway_last[2];

/* Windows of side i: what it may send, and what it has promised to take. */
byte send_window[2] = W;
byte promised[2] = W;
byte unread[2], ungranted[2];

/* The end of the other direction, as side i has seen it. */
bool saw_fin[2], saw_rst[2];
bool app_closed[2];     /* the application reads no more */
bool wrote_all[2];      /* the application has nothing more to say */
bool was_reset[2];      /* RST has been sent: one is enough */
bool probed[2], asked_later;
bool heard[2];          /* the opener has seen that the peer has the stream */
bool goaway_sent[2];
bool swallows;          /* Go v2.0.1: the 8 bytes behind a GOAWAY */
bool wrong_half;        /* Go: FIN on SYN ended its own direction */
bool cut;

/* What really happened: the properties compare with it. */
byte written[2], got[2];
bool whole[2];          /* the application of side i ended it, and was not cut short */
bool cancelled[2];      /* or it was cut short */
bool processed;         /* the acceptor's application has seen the stream */
bool retry;             /* the opener was told that it is safe to retry */
bool ended_by_goaway;   /* Rust: a GOAWAY ended its session */

inline forget(i) {
    /* Nothing more goes out on the stream but an RST. */
    queued[i] = 0; fin_due[i] = false; credit_due[i] = 0;
    syn_due[i] = false
}

inline reset(i) {
    /* Side i resets the stream.  A peer that has not heard of it need not be told. */
    if
    :: !syn_due[i] && !was_reset[i] -> rst_due[i] = true; was_reset[i] = true
    :: else
    fi;
    forget(i);
    stream[i] = CLOSED
}

inline settle(i) {
    /* Both directions are done. */
    if
    :: stream[i] == LIVE && saw_fin[i] && wrote_all[i] && queued[i] == 0 && !fin_due[i] ->
        stream[i] = CLOSED
    :: else
    fi
}

inline grant(i, n) {
    if
    :: stream[i] == LIVE -> credit_due[i] = credit_due[i] + n
    :: else
    fi
}

/* Side i has read a frame. */
inline handle(i) {
    if
    :: swallows && i == 1 && kind != IGNORED -> swallows = false /* and the frame is lost */
    :: kind == IGNORED -> if :: i == 1 -> swallows = false :: else fi
    :: !(swallows && i == 1) && kind == SYN ->
        if
        :: goaway_sent[i] ->
            assert(!processed);
            was_reset[i] = true; rst_due[i] = true; stream[i] = CLOSED
        :: else ->
            stream[i] = LIVE;
            processed = true;
            if
            :: i == 0 && GROWN > W -> grant(0, GROWN - W)
            :: else
            fi;
            if
            :: fin && IS_GO(i) -> wrong_half = true
            :: fin && !IS_GO(i) -> saw_fin[i] = true
            :: else
            fi
        fi
    :: !(swallows && i == 1) && kind == DATA ->
        heard[i] = true;
        if
        :: stream[i] == LIVE && !app_closed[i] ->
            assert(n <= promised[i]); /* more was never allowed */
            promised[i] = promised[i] - n;
            unread[i] = unread[i] + n;
            if :: fin -> saw_fin[i] = true :: else fi;
            settle(i)
        :: stream[i] == LIVE && app_closed[i] ->
            /* Our end is still on its way: RST would take it along.  So this is skipped. */
            promised[i] = promised[i] - n;
            if
            :: fin -> saw_fin[i] = true
            :: else -> if :: IS_OURS(i) && n > 0 -> grant(i, n) :: else fi
            fi;
            settle(i)
        :: stream[i] == CLOSED && (n > 0 || (!IS_OURS(i) && !fin)) && !was_reset[i] ->
            rst_due[i] = true; was_reset[i] = true
        :: else
        fi
    :: !(swallows && i == 1) && kind == WNDINC ->
        heard[i] = true;
        if
        :: stream[i] == LIVE ->
            send_window[i] = send_window[i] + n;
            probed[i] = false;
            if
            :: IS_RUST(i) && send_window[i] > W -> send_window[i] = W
            :: else
            fi
        :: else
        fi
    :: !(swallows && i == 1) && kind == RST ->
        if
        :: stream[i] == LIVE -> saw_rst[i] = true; forget(i); stream[i] = CLOSED
        :: else
        fi
    :: !(swallows && i == 1) && kind == GOAWAY ->
        if
        :: PEER == GO_V2_OLD && i == 1 -> swallows = true
        :: else
        fi;
        if
        :: IS_RUST(i) ->
            /* The end of its session: what its streams read next is a proper end. */
            ended_by_goaway = true; saw_fin[i] = true; forget(i); stream[i] = CLOSED
        :: !IS_RUST(i) && i == OPENER && stream[i] == LIVE && n == 0 && !heard[i] ->
            /* The peer has not taken the stream, and never will. */
            assert(!processed); /* what is tried again was never seen */
            saw_rst[i] = true; retry = true; forget(i); stream[i] = CLOSED
        :: else
        fi
    :: else
    fi
}

proctype reader(byte i) {
    mtype kind; byte n; bool fin;
end:
    do
    :: atomic {
        !BLOCKED(i) && nempty(wire[1 - i]) ->
        wire[1 - i]?kind, n, fin ->
        handle(i); n = 0; fin = false
       }
#ifdef CUT
    :: atomic {
        cut ->
        /* What was on its way is lost, from anywhere on. */
        do
        :: wire[1 - i]?kind, n, fin ->
#ifdef CUT_INSIDE
            /* Of a frame with data and FIN a part may have come.  Go v2 takes it for the end. */
            if
            :: IS_GO_V2(i) && kind == DATA && n > 0 && fin && stream[i] == LIVE && !app_closed[i] ->
                saw_fin[i] = true
            :: true
            fi
#else
            skip
#endif
        :: empty(wire[1 - i]) -> break
        od;
        n = 0; fin = false;
        if
        :: stream[i] == LIVE && !saw_fin[i] ->
            if
            :: IS_RUST(i) -> saw_fin[i] = true /* a cut transport reads as a proper end */
            :: else -> saw_rst[i] = true
            fi
        :: else
        fi;
        forget(i); rst_due[i] = false; goaway_due[i] = false; ignored_due[i] = false;
        if :: stream[i] != NONE -> stream[i] = CLOSED :: else fi;
        break
       }
#endif
    od
}

/* It asks again and again: so once at any moment, and once when the peer has closed the stream.
 * (Endless questions would hide that nothing else can happen.)
 */
#ifdef ASKS_ONCE
#define ASKS_LATER(i) false
#else
#define ASKS_LATER(i) (stream[1 - i] == CLOSED && !asked_later)
#endif

#define CAN_SEND(i) (!cut && nfull(wire[i]))
/* Data of a stream goes behind the frame that opens it, control frames before all data. */
#define CONTROL(i) (goaway_due[i] || ignored_due[i] || rst_due[i])

proctype writer(byte i) {
    bool fin;
end:
    do
    :: atomic { CAN_SEND(i) && ignored_due[i] -> ignored_due[i] = false; wire[i]!IGNORED, 0, false }
    :: atomic {
        CAN_SEND(i) && goaway_due[i] && !ignored_due[i] ->
        goaway_due[i] = false;
        wire[i]!GOAWAY, goaway_last[i], false;
#ifndef NOTHING_BEHIND_GOAWAY
        if :: i == 0 -> ignored_due[i] = true :: else fi
#endif
       }
    :: atomic {
        CAN_SEND(i) && rst_due[i] && !goaway_due[i] && !ignored_due[i] ->
        rst_due[i] = false; wire[i]!RST, 0, false
       }
    :: atomic {
        CAN_SEND(i) && !CONTROL(i) && syn_due[i] && OPENS(i) ->
        syn_due[i] = false;
#ifdef FIN_WITH_SYN
        fin = fin_due[i] && queued[i] == 0;
        if :: fin -> fin_due[i] = false :: else fi;
#endif
        wire[i]!SYN, 0, fin; fin = false;
        settle(i)
       }
    :: atomic {
        CAN_SEND(i) && !CONTROL(i) && !syn_due[i] && credit_due[i] > 0 ->
        promised[i] = promised[i] + credit_due[i];
        wire[i]!WNDINC, credit_due[i], false; credit_due[i] = 0
       }
    :: atomic {
        CAN_SEND(i) && !CONTROL(i) && !syn_due[i] && queued[i] > 0 && send_window[i] > 0 ->
        queued[i]--; send_window[i]--;
#ifndef FIN_ALONE
        fin = fin_due[i] && queued[i] == 0; /* FIN joins the last data */
        if :: fin -> fin_due[i] = false :: else fi;
#endif
        wire[i]!DATA, 1, fin; fin = false;
        settle(i)
       }
    :: atomic {
        CAN_SEND(i) && !CONTROL(i) && !syn_due[i] && queued[i] == 0 && fin_due[i] ->
        fin_due[i] = false;
        wire[i]!DATA, 0, true;
        settle(i)
       }
#ifndef NO_PROBE
    :: atomic { /* A sender that has had no window for long asks whether the stream is there. */
        CAN_SEND(i) && i == 0 && stream[i] == LIVE && !CONTROL(i) && !syn_due[i] &&
        queued[i] > 0 && send_window[i] == 0 && (!probed[i] || ASKS_LATER(i)) ->
        asked_later = asked_later || probed[i];
        probed[i] = true; wire[i]!DATA, 0, false
       }
#endif
    od
}

/* An application of side i sends up to M units, and reads.
 *
 * PATIENT reads to the end.  GRACEFUL closes when it has sent what it had, whatever comes.
 * CUTTING is cancelled at any moment.
 */
proctype application(byte i) {
    mtype kind;
    byte left;

    left = LEAST(i);
    do
    :: left < M -> left++
    :: break
    od;
    if
    :: kind = PATIENT
    :: kind = GRACEFUL
    :: kind = CUTTING
    fi;
    if
    :: i == OPENER -> atomic {
#ifdef CUT
        if :: cut -> goto over :: else fi;
#endif
        stream[i] = LIVE; syn_due[i] = true;
        if
        :: i == 0 && GROWN > W -> grant(0, GROWN - W)
        :: else
        fi
       }
    :: else ->
end_unopened:
        stream[i] != NONE;
        if
        :: !processed -> goto over /* it was refused */
        :: else
        fi
    fi;
    do
    :: atomic { /* send_all: the buffer takes one unit */
        left > 0 && queued[i] == 0 && !wrote_all[i] && stream[i] == LIVE && !(i == 1 && wrong_half) ->
        left--; written[i]++; queued[i]++
       }
    :: atomic { /* send_eof */
        left == 0 && !wrote_all[i] && stream[i] == LIVE && kind != CUTTING && !(i == 1 && wrong_half) ->
        wrote_all[i] = true; whole[i] = true; fin_due[i] = true
       }
    :: atomic { /* receive_some, which may grant */
        unread[i] > 0 ->
        unread[i]--; got[i]++; ungranted[i]++;
        if
        :: ungranted[i] >= DUE(i) -> grant(i, ungranted[i]); ungranted[i] = 0
        :: else
        fi
       }
    :: atomic { /* receive_some: the end */
        told[i] == RUNNING && unread[i] == 0 && saw_fin[i] ->
        told[i] = ENDED;
#ifdef JUDGES_BOTH
        assert(whole[1 - i] && got[i] == written[1 - i])
#else
        /* A cut stream never looks whole, to whoever uses our side. */
        assert(i == 1 || (whole[1] && got[0] == written[1]))
#endif
       }
    :: atomic { /* or a break, which somebody has to be the cause of */
        told[i] == RUNNING && unread[i] == 0 && !saw_fin[i] && saw_rst[i] ->
        told[i] = BROKEN;
        assert(cut || cancelled[1 - i] || (goaway_sent[1 - i] && !processed) || ended_by_goaway)
       }
    :: atomic { /* aclose: what waits is sent, then FIN; nothing more is read */
        kind == GRACEFUL && left == 0 && (wrote_all[i] || stream[i] == CLOSED) ->
        app_closed[i] = true;
        if
        :: stream[i] == LIVE && IS_OURS(i) ->
            /* The credit of what was not read goes back, so that a sender learns of the end. */
            if
            :: unread[i] + ungranted[i] > 0 && !syn_due[i] ->
                grant(i, unread[i] + ungranted[i]); unread[i] = 0; ungranted[i] = 0
            :: else
            fi
        :: else -> unread[i] = 0
        fi;
        break
       }
    :: atomic { /* cancelled */
        kind == CUTTING ->
        if
        :: !wrote_all[i] && stream[i] == LIVE ->
            cancelled[i] = true;
#ifdef FIN_WHEN_CANCELLED
            if
            :: i == 0 -> fin_due[i] = true; wrote_all[i] = true; app_closed[i] = true
            :: else -> reset(i)
            fi
#else
            reset(i)
#endif
        :: else
        fi;
        app_closed[i] = true; unread[i] = 0;
        break
       }
    :: (told[i] != RUNNING && (wrote_all[i] || stream[i] == CLOSED) && queued[i] == 0 && !fin_due[i]) ->
        break
    od;
    /* A stream that is closed is forgotten when its end has gone out. */
    atomic {
        stream[i] == CLOSED || (queued[i] == 0 && !fin_due[i] && !syn_due[i]) ->
        stream[i] = CLOSED
    };
over:
    skip
}

#ifdef GOES
/* Side i sends GOAWAY, at any moment. */
proctype leaver(byte i) {
    atomic {
        !goaway_due[i] && !cut ->
        goaway_sent[i] = true; goaway_due[i] = true;
        goaway_last[i] = (stream[i] != NONE && i != OPENER -> 1 : 0)
    }
}
#endif

#ifdef CUT
proctype cutter() { cut = true }
#endif

init {
    atomic {
        run application(0); run application(1);
        run reader(0); run reader(1);
        run writer(0); run writer(1);
#ifdef GOES
        if
        :: GOES == 0 || GOES == 2 -> run leaver(0)
        :: else
        fi;
        if
        :: GOES == 1 || GOES == 2 -> run leaver(1)
        :: else
        fi;
#endif
#ifdef CUT
        run cutter();
#endif
    }
}
