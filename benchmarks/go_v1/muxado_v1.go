// The first generation, as Debian packages it. It has no module that a proxy
// would serve, so it is built in GOPATH mode, together with ../go/common.go.
package main

import (
	"net"

	"github.com/inconshreveable/muxado"
)

type v1Stream struct{ muxado.Stream }

// finish puts the end on the last data frame, which v1 offers.
func (s v1Stream) finish(p []byte) error {
	_, err := s.HalfClose(p)
	return err
}

type v1Session struct{ muxado.Session }

func (s v1Session) open() (stream, error) {
	str, err := s.Session.Open()
	return v1Stream{str}, err
}

func (s v1Session) accept() (stream, error) {
	str, err := s.Session.Accept()
	return v1Stream{str}, err
}

func init() {
	makers["muxado-v1"] = func(conn net.Conn, client bool) (session, error) {
		if client {
			return v1Session{muxado.Client(conn)}, nil
		}
		return v1Session{muxado.Server(conn)}, nil
	}
}
