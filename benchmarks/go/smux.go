package main

import (
	"io"
	"net"

	"github.com/xtaci/smux"
)

type smuxStream struct{ *smux.Stream }

// Read looks again before it believes in an end: when data and the peer's end arrive
// between two checks of smux 1.5.58's Read, it reports the end before the data.
func (s smuxStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if err == io.EOF {
		n, err = s.Stream.Read(p)
	}
	return n, err
}

func (s smuxStream) finish(p []byte) error {
	if len(p) > 0 {
		if _, err := s.Write(p); err != nil {
			return err
		}
	}
	return s.CloseWrite()
}

type smuxSession struct{ *smux.Session }

func (s smuxSession) open() (stream, error) {
	str, err := s.OpenStream()
	return smuxStream{str}, err
}

func (s smuxSession) accept() (stream, error) {
	str, err := s.AcceptStream()
	return smuxStream{str}, err
}

func init() {
	makers["smux"] = func(conn net.Conn, client bool) (session, error) {
		start := smux.Server
		if client {
			start = smux.Client
		}
		sess, err := start(conn, nil)
		return smuxSession{sess}, err
	}
}
