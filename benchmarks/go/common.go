// The Go side of the benchmarks: the same exchange and the same works as
// benchmarks/_common.py, for any multiplexer that registers itself here.
//
//	bench NAME server [--cert PEM]
//	bench NAME client WORK --port N [--ca PEM] [--at-once N] [--streams N] ...
//
// Nothing but the standard library, so that the peer of the first generation,
// which only builds in GOPATH mode, is driven by this very file as well.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	requestSize = 64
	chunkSize   = 64 << 10
	receiveSize = 256 << 10
	smallRead   = 512
	openAtOnce  = 50
	million     = 1e6
)

// stream is one stream of a multiplexer.
type stream interface {
	io.Reader
	io.Writer
	// finish sends p and ends our direction, in the cheapest way the library offers.
	finish(p []byte) error
	Close() error
}

// session opens streams on the client and accepts them on the server.
type session interface {
	open() (stream, error)
	accept() (stream, error)
	Close() error
}

type maker func(conn net.Conn, client bool) (session, error)

var makers = map[string]maker{}

type usage struct {
	CPU float64 `json:"cpu"`
	RSS int64   `json:"rss"`
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/million
}

func residentBytes() int64 {
	debug.FreeOSMemory() // collects first: what is left is in use
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int64
	fmt.Sscan(string(text), &size, &resident)
	return resident * int64(os.Getpagesize())
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// ---------------------------------------------------------------- server

func answer(s stream) {
	defer s.Close()
	first := make([]byte, smallRead)
	n, err := s.Read(first)
	if n == 0 || (err != nil && err != io.EOF) {
		return
	}
	switch first[0] {
	case 'r':
		for err == nil {
			_, err = s.Read(first)
		}
		s.finish(make([]byte, requestSize))
	case 'b':
		total, buf := int64(n), make([]byte, receiveSize)
		for err == nil {
			n, err = s.Read(buf)
			total += int64(n)
		}
		s.finish([]byte(fmt.Sprint(total)))
	case 'i':
		s.Write(first[:1])
		for err == nil {
			_, err = s.Read(first)
		}
	case 'u', 'm':
		report := usage{CPU: cpuSeconds()}
		if first[0] == 'm' {
			report.RSS = residentBytes()
		}
		text, _ := json.Marshal(report)
		s.finish(text)
	}
}

func serve(make maker, cert string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Printf("{\"port\": %d}\n", listener.Addr().(*net.TCPAddr).Port)
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, cert)
		must(err)
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}})
	}
	go func() { // the harness ends a server by closing its standard input
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		conn, err := listener.Accept()
		must(err)
		sess, err := make(conn, false)
		must(err)
		go func() {
			defer sess.Close()
			for {
				s, err := sess.accept()
				if err != nil {
					return
				}
				go answer(s)
			}
		}()
	}
}

// ---------------------------------------------------------------- client

// exchange sends p, ends, and returns all that comes back.
func exchange(sess session, p []byte) []byte {
	s, err := sess.open()
	must(err)
	must(s.finish(p))
	got, buf := 0, make([]byte, 256)
	for {
		n, err := s.Read(buf[got:])
		got += n
		if err == io.EOF {
			break
		}
		must(err)
	}
	s.Close()
	return buf[:got]
}

func request(sess session, p []byte) {
	if got := exchange(sess, p); len(got) != requestSize {
		must(fmt.Errorf("an answer of %d bytes", len(got)))
	}
}

func serverUsage(sess session, kind byte) (report usage) {
	must(json.Unmarshal(exchange(sess, []byte{kind}), &report))
	return
}

// bulk sends a chunk, and chunks while more() says so, and returns what the server counted.
func bulk(sess session, more func() bool) (total int64) {
	s, err := sess.open()
	must(err)
	chunk := make([]byte, chunkSize)
	chunk[0] = 'b'
	for first := true; first || more(); first = false {
		_, err = s.Write(chunk)
		must(err)
	}
	must(s.finish(nil))
	text, err := io.ReadAll(s)
	must(err)
	fmt.Sscan(string(text), &total)
	s.Close()
	return
}

func together(n int, job func()) {
	var all sync.WaitGroup
	all.Add(n)
	for i := 0; i < n; i++ {
		go func() { defer all.Done(); job() }()
	}
	all.Wait()
}

// touch opens a stream and sends a byte each way.
func touch(sess session) stream {
	s, err := sess.open()
	must(err)
	_, err = s.Write([]byte("i"))
	must(err)
	_, err = io.ReadFull(s, make([]byte, 1))
	must(err)
	return s
}

// whole is a session of its own: connect, a byte each way, close.
func whole(connect func() session) {
	sess := connect()
	touch(sess).Close()
	sess.Close()
}

func hold(n int, one func() interface{}) {
	var left = int64(n)
	together(min(n, openAtOnce), func() {
		for atomic.AddInt64(&left, -1) >= 0 {
			held.Store(one(), true)
		}
	})
}

var held sync.Map // what is idle must not be collected

type report map[string]interface{}

// requests keeps n workers busy, first to warm up, then measured.
func requests(sess session, n int, seconds float64, one func()) report {
	run := func(seconds float64) (took []float64) {
		var lock sync.Mutex
		stop := time.Now().Add(time.Duration(seconds * float64(time.Second)))
		together(n, func() {
			var mine []float64
			for now := time.Now(); now.Before(stop); {
				one()
				after := time.Now()
				mine = append(mine, after.Sub(now).Seconds())
				now = after
			}
			lock.Lock()
			took = append(took, mine...)
			lock.Unlock()
		})
		return
	}
	run(seconds / 4)
	there, here, start := serverUsage(sess, 'u'), cpuSeconds(), time.Now()
	took := run(seconds)
	elapsed, spent := time.Since(start).Seconds(), cpuSeconds()-here
	after := serverUsage(sess, 'u')
	if len(took) == 0 {
		must(fmt.Errorf("no request ended in time"))
	}
	sort.Float64s(took)
	return report{
		"requests": len(took), "seconds": elapsed, "at_once": n,
		"p50": took[len(took)/2], "p99": took[len(took)*99/100],
		"client_cpu": spent, "server_cpu": after.CPU - there.CPU,
	}
}

func run(connect func() session, work string, opt options) report {
	sess := connect()
	payload := append([]byte{'r'}, make([]byte, requestSize-1)...)
	one := func() { request(sess, payload) }
	idle := func() interface{} { return touch(sess) }
	if opt.sessions {
		one = func() { whole(connect) }
		idle = func() interface{} {
			sess := connect()
			touch(sess).Close()
			return sess
		}
	}
	memory := func() report {
		if opt.idle > 1 { // what only the first ones cost is not the memory of one
			hold(20, idle)
		}
		there, here := serverUsage(sess, 'm').RSS, residentBytes()
		hold(opt.idle, idle)
		there, here = serverUsage(sess, 'm').RSS-there, residentBytes()-here
		return report{
			"client_memory": float64(here) / float64(opt.idle),
			"server_memory": float64(there) / float64(opt.idle),
		}
	}
	until := func() func() bool {
		stop, budget := time.Now().Add(time.Duration(opt.seconds*float64(time.Second))), opt.bytes
		return func() bool {
			return time.Now().Before(stop) && atomic.AddInt64(&budget, -chunkSize) >= 0
		}
	}
	switch work {
	case "a":
		if opt.idle == 0 {
			return requests(sess, opt.atOnce, opt.seconds, one)
		}
		held := memory()
		result := requests(sess, opt.atOnce, opt.seconds, one)
		for name, bytes := range held {
			result[name] = bytes
		}
		return result
	case "m":
		result := memory()
		start, there, here := time.Now(), serverUsage(sess, 'u'), cpuSeconds()
		time.Sleep(time.Duration(opt.watch * float64(time.Second)))
		spent, after := cpuSeconds()-here, serverUsage(sess, 'u')
		elapsed := time.Since(start).Seconds()
		result["client_idle_cpu"] = spent / elapsed
		result["server_idle_cpu"] = (after.CPU - there.CPU) / elapsed
		return result
	case "b":
		var total int64
		there, here, start := serverUsage(sess, 'u'), cpuSeconds(), time.Now()
		more := until()
		together(opt.streams, func() { atomic.AddInt64(&total, bulk(sess, more)) })
		elapsed, spent := time.Since(start).Seconds(), cpuSeconds()-here
		return report{
			"bytes": total, "seconds": elapsed, "streams": opt.streams,
			"client_cpu": spent, "server_cpu": serverUsage(sess, 'u').CPU - there.CPU,
		}
	case "f":
		var running int32 = 1
		beside, start := make(chan int64), time.Now()
		go func() {
			beside <- bulk(sess, func() bool { return atomic.LoadInt32(&running) == 1 })
		}()
		result := requests(sess, opt.atOnce, opt.seconds, one)
		atomic.StoreInt32(&running, 0)
		result["beside_bytes"] = <-beside
		result["beside_seconds"] = time.Since(start).Seconds()
		return result
	}
	must(fmt.Errorf("no such work: %q", work))
	return nil
}

type options struct {
	port, atOnce, streams, idle int
	sessions                    bool
	seconds, watch              float64
	bytes                       int64
	cert, ca                    string
}

func dial(opt options) net.Conn {
	address := fmt.Sprintf("127.0.0.1:%d", opt.port)
	if opt.ca == "" {
		conn, err := net.Dial("tcp", address)
		must(err)
		return conn
	}
	text, err := os.ReadFile(opt.ca)
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots})
	must(err)
	return conn
}

func main() {
	if len(os.Args) < 3 || makers[os.Args[1]] == nil {
		must(fmt.Errorf("usage: NAME server|client WORK [options]"))
	}
	make, rest, work := makers[os.Args[1]], os.Args[3:], ""
	if os.Args[2] == "client" && len(rest) > 0 {
		work, rest = rest[0], rest[1:]
	}
	var opt options
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.IntVar(&opt.port, "port", 0, "where the server listens")
	flags.IntVar(&opt.atOnce, "at-once", 64, "requests at once")
	flags.IntVar(&opt.streams, "streams", 1, "bulk streams at once")
	flags.IntVar(&opt.idle, "idle", 0, "idle streams that live beside")
	flags.BoolVar(&opt.sessions, "sessions", false, "sessions instead of streams")
	flags.Float64Var(&opt.watch, "watch", 0, "seconds to look at what is idle")
	flags.Float64Var(&opt.seconds, "seconds", 2, "how long to measure")
	flags.Int64Var(&opt.bytes, "bytes", 1<<30, "how much bulk at most")
	flags.StringVar(&opt.cert, "cert", "", "serve TLS with this PEM file")
	flags.StringVar(&opt.ca, "ca", "", "speak TLS, trusting this PEM file")
	flags.Parse(rest)
	if os.Args[2] == "server" {
		serve(make, opt.cert)
	}
	connect := func() session {
		sess, err := make(dial(opt), true)
		must(err)
		return sess
	}
	text, err := json.Marshal(run(connect, work, opt))
	must(err)
	fmt.Println(string(text))
}
