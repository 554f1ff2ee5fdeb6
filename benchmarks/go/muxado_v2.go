package main

import (
	"net"

	muxado "golang.ngrok.com/muxado/v2"
)

type v2Stream struct{ muxado.Stream }

func (s v2Stream) finish(p []byte) error {
	if len(p) > 0 {
		if _, err := s.Write(p); err != nil {
			return err
		}
	}
	return s.CloseWrite()
}

type v2Session struct{ muxado.Session }

func (s v2Session) open() (stream, error) {
	str, err := s.OpenStream()
	return v2Stream{str}, err
}

func (s v2Session) accept() (stream, error) {
	str, err := s.AcceptStream()
	return v2Stream{str}, err
}

func init() {
	makers["muxado-v2"] = func(conn net.Conn, client bool) (session, error) {
		if client {
			return v2Session{muxado.Client(conn, nil)}, nil
		}
		return v2Session{muxado.Server(conn, nil)}, nil
	}
}
