package main

import (
	"net"

	"github.com/hashicorp/yamux"
)

// yamuxStream: Close of a yamux stream ends our direction only.
type yamuxStream struct{ *yamux.Stream }

func (s yamuxStream) finish(p []byte) error {
	if len(p) > 0 {
		if _, err := s.Write(p); err != nil {
			return err
		}
	}
	return s.Stream.Close()
}

type yamuxSession struct{ *yamux.Session }

func (s yamuxSession) open() (stream, error) {
	str, err := s.OpenStream()
	return yamuxStream{str}, err
}

func (s yamuxSession) accept() (stream, error) {
	str, err := s.AcceptStream()
	return yamuxStream{str}, err
}

func init() {
	makers["yamux"] = func(conn net.Conn, client bool) (session, error) {
		start := yamux.Server
		if client {
			start = yamux.Client
		}
		sess, err := start(conn, nil)
		return yamuxSession{sess}, err
	}
}
