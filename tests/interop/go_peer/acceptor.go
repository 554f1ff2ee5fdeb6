package peer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"strconv"
	"strings"
	"sync"
	"time"
)

// host answers the streams that the other end opens, in either role of the session.
//
// The opener of a stream writes one line that says what the acceptor shall do. What could not be
// told on the stream itself, because it was ended or reset, is noted and can be asked for on
// another stream with "recall".
type host struct {
	session Session
	options Options
	seed    bool
	echo    bool

	mu     sync.Mutex
	cond   *sync.Cond
	notes  map[string]string
	paused time.Time
	gate   sync.Mutex // locked while nothing is to be accepted
}

func newHost(session Session, options Options) *host {
	h := &host{session: session, options: options, notes: make(map[string]string)}
	h.cond = sync.NewCond(&h.mu)
	return h
}

// defaultType is the type of streams for which a scenario does not care.
func (h *host) defaultType() uint32 {
	if h.options.Typed || h.options.Heartbeat {
		return 1
	}
	return 0
}

func (h *host) run() {
	for {
		h.waitForPause()
		stream, err := h.session.Accept()
		if err != nil {
			return
		}
		h.waitForPause()
		go func() {
			var err error
			if h.echo {
				err = answerEcho(stream)
			} else if h.seed {
				err = answerSeed(stream)
			} else {
				err = h.answer(stream)
			}
			if err != nil {
				log.Printf("stream: %v", err)
			}
		}()
	}
}

func (h *host) waitForPause() {
	h.mu.Lock()
	until := h.paused
	h.mu.Unlock()
	time.Sleep(time.Until(until))
	h.gate.Lock()
	h.gate.Unlock() //nolint:staticcheck // only to wait
}

func (h *host) note(key, text string) {
	h.mu.Lock()
	h.notes[key] = text
	h.cond.Broadcast()
	h.mu.Unlock()
}

// recall waits for a note: it may be asked for before it is written.
func (h *host) recall(key string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if text, ok := h.notes[key]; ok {
			return text
		}
		h.cond.Wait()
	}
}

// answerEcho is all that an echo peer does with a stream.
func answerEcho(stream Stream) error {
	if _, err := io.Copy(stream, stream); err != nil {
		return err
	}
	return stream.CloseWrite()
}

// answerSeed is the exchange of the server in the seed's README.
func answerSeed(stream Stream) error {
	all, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	return halfCloseWith(stream, all)
}

func (h *host) answer(stream Stream) error {
	reader := bufio.NewReader(stream)
	line, err := reader.ReadString('\n')
	if err != nil {
		return fmt.Errorf("no command line: %w", err)
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return fmt.Errorf("empty command line")
	}
	argument := func(i int, otherwise string) string {
		if len(words) > i {
			return words[i]
		}
		return otherwise
	}
	number := func(i int) int {
		n, _ := strconv.Atoi(argument(i, "0"))
		return n
	}

	switch words[0] {
	case "echo":
		if _, err := io.Copy(stream, reader); err != nil {
			return err
		}
		return stream.CloseWrite()
	case "digest":
		_, digest, err := digestOf(reader)
		if err != nil {
			return err
		}
		return reply(stream, digest)
	case "source":
		for sent, total := 0, number(1); sent < total; {
			n := min(total-sent, 64<<10)
			if _, err := stream.Write(pattern(sent, n)); err != nil {
				return err
			}
			sent += n
		}
		return stream.CloseWrite()
	case "answer-after-eof":
		n, _, err := digestOf(reader)
		if err != nil {
			return err
		}
		return reply(stream, fmt.Sprintf("got %d", n))
	case "eof-first":
		if err := stream.CloseWrite(); err != nil {
			return err
		}
		n, digest, err := digestOf(reader)
		if err != nil {
			return err
		}
		h.note(argument(1, ""), fmt.Sprintf("%d %s", n, digest))
		return nil
	case "recall":
		return reply(stream, h.recall(argument(1, "")))
	case "open-back":
		return reply(stream, h.openBack(number(1)))
	case "type":
		return reply(stream, strconv.FormatUint(uint64(stream.Type()), 10))
	case "reset":
		return h.session.Reset(stream, uint32(number(1)))
	case "flood":
		for sent := 0; ; {
			n, err := stream.Write(pattern(sent, 4096))
			if err != nil {
				h.note(argument(1, ""), h.describe(err))
				return nil
			}
			sent += n
		}
	case "pause":
		h.mu.Lock()
		h.paused = time.Now().Add(time.Duration(number(1)) * time.Millisecond)
		h.mu.Unlock()
		return reply(stream, "paused")
	case "hold":
		h.gate.Lock()
		defer h.gate.Unlock()
		if err := reply(stream, "held"); err != nil {
			return err
		}
		_, _, err := digestOf(reader)
		return err
	case "goaway":
		if err := h.session.GoAway(uint32(number(1)), "going away"); err != nil {
			return err
		}
		return reply(stream, "gone")
	case "leave":
		return h.session.Leave(uint32(number(1)), "going away")
	case "close":
		return h.session.Close()
	}
	return fmt.Errorf("unknown command %q", words[0])
}

// describe is how an end of a stream is noted: "reset CODE" or the library's words.
func (h *host) describe(err error) string {
	if code, ok := h.session.ResetCode(err); ok {
		return fmt.Sprintf("reset %d", code)
	}
	return "error " + err.Error()
}

// openBack opens count streams to the initiator and checks their echoes.
func (h *host) openBack(count int) string {
	failures := make(chan error, count)
	for i := 0; i < count; i++ {
		i := i
		go func() {
			payload := pattern(i*997, 1000+i*331)
			got, err := h.request("echo", payload)
			if err == nil && !bytes.Equal(got, payload) {
				err = fmt.Errorf("echo %d differs", i)
			}
			failures <- err
		}()
	}
	for i := 0; i < count; i++ {
		if err := <-failures; err != nil {
			return "bad: " + err.Error()
		}
	}
	return "ok"
}

// request opens a stream, says line and body, half-closes it and reads the whole answer.
func (h *host) request(line string, body []byte) ([]byte, error) {
	return h.requestTyped(h.defaultType(), line, body)
}

func (h *host) requestTyped(streamType uint32, line string, body []byte) ([]byte, error) {
	stream, err := h.session.Open(streamType)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	failed := make(chan error, 1)
	go func() {
		failed <- say(stream, line, body)
	}()
	answer, err := io.ReadAll(stream)
	if err != nil {
		return answer, fmt.Errorf("read after %q: %w", line, err)
	}
	if err := <-failed; err != nil {
		return answer, fmt.Errorf("write after %q: %w", line, err)
	}
	return answer, nil
}

// begin opens a stream and says line; what follows is the caller's.
func (h *host) begin(line string) (Stream, error) {
	stream, err := h.session.Open(h.defaultType())
	if err != nil {
		return nil, err
	}
	_, err = stream.Write([]byte(line + "\n"))
	return stream, err
}

func say(stream Stream, line string, body []byte) error {
	if _, err := stream.Write([]byte(line + "\n")); err != nil {
		return err
	}
	if _, err := stream.Write(body); err != nil {
		return err
	}
	return stream.CloseWrite()
}

func reply(stream Stream, text string) error {
	if _, err := stream.Write([]byte(text)); err != nil {
		return err
	}
	return stream.CloseWrite()
}

func digestOf(reader io.Reader) (int64, string, error) {
	hash := sha256.New()
	n, err := io.Copy(hash, reader)
	return n, hex.EncodeToString(hash.Sum(nil)), err
}

// halfCloseWith sends the last data and FIN in one call, which only v1 offers.
func halfCloseWith(stream Stream, last []byte) error {
	both, ok := stream.(interface{ HalfClose([]byte) (int, error) })
	if !ok {
		return fmt.Errorf("this library has no HalfClose with data")
	}
	_, err := both.HalfClose(last)
	return err
}
