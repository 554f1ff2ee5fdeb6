// Package peer is what the two Go interoperability peers have in common: the command line, the
// stream protocol and the scenarios. Each generation of muxado is an adapter of this package's
// Session and Stream, so a difference between two runs is a difference between two libraries.
package peer

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Stream is the part of a muxado stream that both generations can offer.
type Stream interface {
	io.ReadWriter
	// CloseWrite ends our direction and leaves the other one open.
	CloseWrite() error
	// Close ends our direction, forgets the stream and has later data answered by RST.
	Close() error
	// Type is the stream's type, 0 where it has none.
	Type() uint32
}

// Session is the part of a muxado session that both generations can offer.
type Session interface {
	Open(streamType uint32) (Stream, error)
	Accept() (Stream, error)
	GoAway(code uint32, debug string) error
	// Reset sends RST with the code, where the library can be brought to send one. Else it closes
	// the stream, which answers the data that comes later by RST.
	Reset(stream Stream, code uint32) error
	// Leave sends GOAWAY and ends the transport behind it.
	Leave(code uint32, debug string) error
	Close() error
	// Wait blocks until the session has ended. Any number of goroutines may wait.
	Wait() Ending
	// ResetCode finds the code of a received RST in an error of a stream.
	ResetCode(err error) (code uint32, ok bool)
}

// Ending is how a session ended, as its library tells it.
type Ending struct {
	Clean  bool   `json:"clean"`  // nobody broke anything: a close on one of the two sides
	Code   uint32 `json:"code"`   // the library's own code for the end
	Error  string `json:"error"`  // the library's own words
	GoAway bool   `json:"goaway"` // whether a GOAWAY had arrived
	Remote uint32 `json:"remote"` // the code of that GOAWAY, where the library tells it
	Debug  string `json:"debug"`  // the debug text of that GOAWAY
	Beats  int64  `json:"beats"`  // heartbeats answered in time
	Missed int64  `json:"missed"` // heartbeats that were not
}

// Options are the choices of the command line that an adapter has to know.
type Options struct {
	Typed     bool
	Heartbeat bool
	Interval  time.Duration
	Tolerance time.Duration
}

// Wire is one generation of muxado.
type Wire struct {
	Client func(net.Conn, Options) Session
	Server func(net.Conn, Options) Session
}

// Main runs the command line and never returns.
func Main(wire Wire) {
	if len(os.Args) < 2 || (os.Args[1] != "serve" && os.Args[1] != "dial") {
		fail("usage: peer serve|dial [options] [SCENARIO [arguments]]")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:0", "where to listen or whom to dial")
	echo := flags.Bool("echo", false, "be an echo peer: see docs/specification/vectors.md")
	seed := flags.Bool("seed", false, "serve the example in muxado v1's README instead of the stream protocol")
	timeout := flags.Duration("timeout", time.Minute, "the longest time a scenario may take")
	var options Options
	flags.BoolVar(&options.Typed, "typed", false, "typed streams (v1 has them always)")
	flags.BoolVar(&options.Heartbeat, "heartbeat", false, "heartbeats (v1 has them always)")
	flags.DurationVar(&options.Interval, "interval", 3*time.Second, "interval of the heartbeat (v1: fixed)")
	flags.DurationVar(&options.Tolerance, "tolerance", 10*time.Second, "tolerance of the heartbeat (v1: fixed)")
	_ = flags.Parse(os.Args[2:])
	if os.Args[1] == "serve" {
		serve(wire, *addr, *seed, *echo, options)
	} else {
		time.AfterFunc(*timeout, func() { fail("timed out after %v", *timeout) })
		dial(wire, *addr, *echo, flags.Args(), options)
	}
}

func serve(wire Wire, addr string, seed, echo bool, options Options) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		fail("listen: %v", err)
	}
	fmt.Printf("LISTENING %d\n", listener.Addr().(*net.TCPAddr).Port)
	go func() {
		// The driver holds the other end of this pipe: no peer outlives its driver.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			fail("accept: %v", err)
		}
		go func() {
			session := wire.Server(conn, options)
			host := newHost(session, options)
			host.seed, host.echo = seed, echo
			go host.run()
			ending, _ := json.Marshal(session.Wait())
			fmt.Printf("SESSION-END %s\n", ending)
		}()
	}
}

func dial(wire Wire, addr string, echo bool, args []string, options Options) {
	if len(args) == 0 && !echo {
		fail("no scenario")
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		fail("dial: %v", err)
	}
	session := wire.Client(conn, options)
	host := newHost(session, options)
	host.echo = echo
	go host.run()
	if echo {
		session.Wait()
		fmt.Println("OK {}")
		os.Exit(0)
	}
	result, err := runScenario(host, args[0], args[1:])
	if err != nil {
		fail("%s: %v", args[0], err)
	}
	_ = session.Close()
	session.Wait()
	encoded, _ := json.Marshal(result)
	fmt.Printf("OK %s\n", encoded)
	os.Exit(0)
}

func fail(format string, args ...any) {
	fmt.Printf("FAIL "+format+"\n", args...)
	os.Exit(1)
}
