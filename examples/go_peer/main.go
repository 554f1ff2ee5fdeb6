// A Go peer for examples/echo_server.py: it sends each argument as a line of its own stream, and
// prints the answers.
//
//	python ../echo_server.py &
//	go run . 127.0.0.1:8765 hello muxado
package main

import (
	"fmt"
	"io"
	"net"
	"os"

	"golang.ngrok.com/muxado/v2"
)

func ask(session muxado.Session, line string) (string, error) {
	stream, err := session.OpenStream()
	if err != nil {
		return "", err
	}
	defer stream.Close()
	if _, err := stream.Write([]byte(line)); err != nil {
		return "", err
	}
	// The server answers what has come; it ends its own direction when this one has ended.
	if err := stream.CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(stream)
	return string(answer), err
}

func run(address string, lines []string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	session := muxado.Client(conn, nil)
	defer session.Close()
	for _, line := range lines {
		answer, err := ask(session, line)
		if err != nil {
			return err
		}
		fmt.Println(answer)
	}
	return nil
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: go_peer HOST:PORT LINE ...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
