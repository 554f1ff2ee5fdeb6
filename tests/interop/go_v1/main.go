// The interoperability peer for the first generation of muxado, against Debian's package of it.
package main

import (
	"net"
	"regexp"
	"strconv"
	"sync"

	"github.com/inconshreveable/muxado"

	"interop.test/peer"
)

func main() {
	peer.Main(peer.Wire{
		Client: func(conn net.Conn, _ peer.Options) peer.Session {
			return &session{Session: muxado.Client(conn)}
		},
		Server: func(conn net.Conn, _ peer.Options) peer.Session {
			return &session{Session: muxado.Server(conn)}
		},
	})
}

type session struct {
	muxado.Session
	once   sync.Once
	ending peer.Ending
}

// Open never lets OpenStream send FIN along: the library would end the wrong half.
func (s *session) Open(streamType uint32) (peer.Stream, error) {
	str, err := s.OpenStream(0, muxado.StreamType(streamType), false)
	if err != nil {
		return nil, err
	}
	return stream{str}, nil
}

func (s *session) Accept() (peer.Stream, error) {
	str, err := s.Session.Accept()
	if err != nil {
		return nil, err
	}
	return stream{str}, nil
}

func (s *session) GoAway(code uint32, debug string) error {
	return s.Session.GoAway(muxado.ErrorCode(code), []byte(debug))
}

func (s *session) Reset(stream peer.Stream, _ uint32) error { return stream.Close() }

// Leave closes the session: the library sends one GOAWAY and no second one.
func (s *session) Leave(code uint32, debug string) error {
	if err := s.GoAway(code, debug); err != nil {
		return err
	}
	return s.Close()
}

// Wait remembers the end: the library tells it to the first one that asks, and to nobody else.
func (s *session) Wait() peer.Ending {
	s.once.Do(func() {
		code, err, debug := s.Session.Wait()
		s.ending = peer.Ending{
			Code:   uint32(code),
			Error:  err.Error(),
			GoAway: debug != nil,
			Debug:  string(debug),
			// An end of the transport between two frames has no code of its own here.
			Clean: err.Error() == "EOF" || err.Error() == "Session Close()",
		}
	})
	return s.ending
}

// The library has no error values, only their words.
var resetWords = regexp.MustCompile(`Stream reset by peer with error (\d+)`)

func (s *session) ResetCode(err error) (uint32, bool) {
	words := resetWords.FindStringSubmatch(err.Error())
	if words == nil {
		return 0, false
	}
	code, err := strconv.ParseUint(words[1], 10, 32)
	return uint32(code), err == nil
}

type stream struct{ muxado.Stream }

func (s stream) CloseWrite() error {
	_, err := s.HalfClose(nil)
	return err
}

func (s stream) Type() uint32 { return uint32(s.StreamType()) }
