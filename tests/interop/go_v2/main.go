// The interoperability peer for the second generation of muxado.
package main

import (
	"errors"
	"io"
	"net"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.ngrok.com/muxado/v2"
	"golang.ngrok.com/muxado/v2/frame"

	"interop.test/peer"
)

const heartbeatType muxado.StreamType = 0xFFFFFFFF

func main() {
	peer.Main(peer.Wire{
		Client: func(conn net.Conn, options peer.Options) peer.Session {
			return start(conn, muxado.Client, options)
		},
		Server: func(conn net.Conn, options peer.Options) peer.Session {
			return start(conn, muxado.Server, options)
		},
	})
}

type session struct {
	conn          net.Conn
	framer        *framer
	raw           muxado.Session
	typed         muxado.TypedStreamSession // nil in a session without types
	beats, missed atomic.Int64
}

// framer lets us put frames between those of the library.
type framer struct {
	frame.Framer
	mu sync.Mutex
}

func (f *framer) WriteFrame(written frame.Frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Framer.WriteFrame(written)
}

func start(
	conn net.Conn,
	begin func(io.ReadWriteCloser, *muxado.Config) muxado.Session,
	options peer.Options,
) *session {
	f := new(framer)
	raw := begin(conn, &muxado.Config{NewFramer: func(r io.Reader, w io.Writer) frame.Framer {
		f.Framer = frame.NewFramer(r, w)
		return f
	}})
	s := &session{conn: conn, framer: f, raw: raw}
	if options.Typed || options.Heartbeat {
		s.typed = muxado.NewTypedStreamSession(raw)
	}
	if options.Heartbeat {
		beating := muxado.NewHeartbeat(s.typed, s.beat, &muxado.HeartbeatConfig{
			Interval:  options.Interval,
			Tolerance: options.Tolerance,
			Type:      heartbeatType,
		})
		beating.Start()
		s.typed = beating
	}
	return s
}

// beat does what every user of the library has to do: end a session that does not answer.
func (s *session) beat(_ time.Duration, timedOut bool) {
	if timedOut {
		s.missed.Add(1)
		_ = s.raw.Close()
	} else {
		s.beats.Add(1)
	}
}

func (s *session) Open(streamType uint32) (peer.Stream, error) {
	var str muxado.Stream
	var err error
	if s.typed == nil {
		str, err = s.raw.OpenStream()
	} else {
		str, err = s.typed.OpenTypedStream(muxado.StreamType(streamType))
	}
	if err != nil {
		return nil, err
	}
	return stream{str, streamType}, nil
}

func (s *session) Accept() (peer.Stream, error) {
	if s.typed == nil {
		str, err := s.raw.AcceptStream()
		if err != nil {
			return nil, err
		}
		return stream{str, 0}, nil
	}
	str, err := s.typed.AcceptTypedStream()
	if err != nil {
		return nil, err
	}
	return stream{str, uint32(str.StreamType())}, nil
}

// GoAway is a method of the library's session that its interface leaves out.
func (s *session) GoAway(code uint32, debug string) error {
	leaver, ok := s.raw.(interface {
		GoAway(muxado.ErrorCode, []byte, time.Time) error
	})
	if !ok {
		return errors.New("this version has no GoAway")
	}
	return leaver.GoAway(muxado.ErrorCode(code), []byte(debug), time.Now().Add(5*time.Second))
}

// Reset writes the frame itself: the library has no call for it.
func (s *session) Reset(reset peer.Stream, code uint32) error {
	rst := new(frame.Rst)
	if err := rst.Pack(frame.StreamId(reset.(stream).Id()), frame.ErrorCode(code)); err != nil {
		return err
	}
	return s.framer.WriteFrame(rst)
}

// Leave ends the transport itself: the library's Close would send a second GOAWAY, without a code.
func (s *session) Leave(code uint32, debug string) error {
	if err := s.GoAway(code, debug); err != nil {
		return err
	}
	return s.conn.Close()
}

func (s *session) Close() error { return s.raw.Close() }

func (s *session) Wait() peer.Ending {
	err, remote, debug := s.raw.Wait()
	code, _ := muxado.GetError(err)
	remoteCode, _ := muxado.GetError(remote)
	return peer.Ending{
		Clean: (code == muxado.SessionClosed || code == muxado.PeerEOF) &&
			remoteCode == muxado.NoError && s.missed.Load() == 0,
		Code:   uint32(code),
		Error:  err.Error(),
		GoAway: remote != nil,
		Remote: uint32(remoteCode),
		Debug:  string(debug),
		Beats:  s.beats.Load(),
		Missed: s.missed.Load(),
	}
}

// A code of our own side and one that came by RST differ in their words only.
var resetWords = regexp.MustCompile(`reset by peer with remote error code: (\d+)`)

func (s *session) ResetCode(err error) (uint32, bool) {
	words := resetWords.FindStringSubmatch(err.Error())
	if words == nil {
		return 0, false
	}
	code, err := strconv.ParseUint(words[1], 10, 32)
	return uint32(code), err == nil
}

type stream struct {
	muxado.Stream
	streamType uint32
}

func (s stream) Type() uint32 { return s.streamType }
