package peer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
)

// result is what a scenario has to tell beyond having succeeded.
type result map[string]any

type scenario func(h *host, numbers []int) (result, error)

// Each scenario's numbers and their defaults are named where they are read.
var scenarios = map[string]scenario{
	"echo":           scenarioEcho,
	"upload":         scenarioUpload,
	"download":       scenarioDownload,
	"halfclose":      scenarioHalfClose,
	"openback":       scenarioOpenBack,
	"idle":           scenarioIdle,
	"close":          scenarioClose,
	"peer-close":     scenarioPeerClose,
	"overrun":        scenarioOverrun,
	"goaway-running": scenarioGoAwayRunning,
	"self-goaway":    scenarioSelfGoAway,
	"reset":          scenarioReset,
	"leave":          scenarioLeave,
	"await":          scenarioAwait,
	"typed":          scenarioTyped,
	"seed-exchange":  scenarioSeedExchange,
}

func runScenario(h *host, name string, args []string) (result, error) {
	run, ok := scenarios[name]
	if !ok {
		return nil, fmt.Errorf("no such scenario")
	}
	numbers := make([]int, len(args))
	for i, arg := range args {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return nil, err
		}
		numbers[i] = n
	}
	return run(h, numbers)
}

func numberOr(numbers []int, i, otherwise int) int {
	if len(numbers) > i {
		return numbers[i]
	}
	return otherwise
}

// together runs count tasks at once and returns the first error.
func together(count int, task func(i int) error) error {
	errs := make(chan error, count)
	for i := 0; i < count; i++ {
		i := i
		go func() {
			if err := task(i); err != nil {
				errs <- fmt.Errorf("task %d: %w", i, err)
			} else {
				errs <- nil
			}
		}()
	}
	var first error
	for i := 0; i < count; i++ {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// twoHalves is an echo in two halves with something in between, while which the stream is
// certainly alive at both ends.
type twoHalves struct {
	stream  Stream
	payload []byte
}

func (h *host) startHalf(i int) (*twoHalves, error) {
	stream, err := h.begin("echo")
	if err != nil {
		return nil, err
	}
	t := &twoHalves{stream, append([]byte(fmt.Sprintf("stream %d ", i)), pattern(i*37, 200+i*53%5000)...)}
	half := t.payload[:len(t.payload)/2]
	if _, err := stream.Write(half); err != nil {
		return nil, err
	}
	got := make([]byte, len(half))
	if _, err := io.ReadFull(stream, got); err != nil {
		return nil, err
	}
	if !bytes.Equal(got, half) {
		return nil, fmt.Errorf("first half of the echo differs")
	}
	return t, nil
}

func (t *twoHalves) finish() error {
	half := t.payload[len(t.payload)/2:]
	if _, err := t.stream.Write(half); err != nil {
		return err
	}
	if err := t.stream.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(t.stream)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, half) {
		return fmt.Errorf("second half of the echo differs")
	}
	return nil
}

// Less than the smallest accept backlog of all peers (64): a burst past it may be refused.
const openingAtOnce = 48

// scenarioEcho: count streams (500) that are all open before the first one ends.
func scenarioEcho(h *host, numbers []int) (result, error) {
	count := numberOr(numbers, 0, 500)
	var barrier sync.WaitGroup
	barrier.Add(count)
	opening := make(chan struct{}, openingAtOnce)
	err := together(count, func(i int) error {
		opening <- struct{}{}
		t, err := h.startHalf(i)
		<-opening
		barrier.Done()
		if err != nil {
			return err
		}
		barrier.Wait()
		return t.finish()
	})
	return result{"streams": count}, err
}

// scenarioUpload: bytes (20 MiB) to the other end, whose digest must be right.
func scenarioUpload(h *host, numbers []int) (result, error) {
	payload := pattern(0, numberOr(numbers, 0, 20<<20))
	answer, err := h.request("digest", payload)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(payload)
	if want := hex.EncodeToString(sum[:]); want != string(answer) {
		return nil, fmt.Errorf("digest %q, wanted %q", answer, want)
	}
	return result{"bytes": len(payload)}, nil
}

// scenarioDownload: bytes (20 MiB) from the other end, on a stream that we half-closed at once.
func scenarioDownload(h *host, numbers []int) (result, error) {
	total := numberOr(numbers, 0, 20<<20)
	got, err := h.request(fmt.Sprintf("source %d", total), nil)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(got, pattern(0, total)) {
		return nil, fmt.Errorf("%d bytes that differ from the pattern", len(got))
	}
	return result{"bytes": total}, nil
}

// scenarioHalfClose: either end ends its direction first, and the other one still works.
func scenarioHalfClose(h *host, _ []int) (result, error) {
	body := pattern(11, 200_000)
	answer, err := h.request("answer-after-eof", body)
	if err != nil {
		return nil, err
	}
	if string(answer) != "got 200000" {
		return nil, fmt.Errorf("answer-after-eof: %q", answer)
	}

	stream, err := h.begin("eof-first half")
	if err != nil {
		return nil, err
	}
	if rest, err := io.ReadAll(stream); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("eof-first: read %d bytes, %v", len(rest), err)
	}
	if _, err := stream.Write(body); err != nil {
		return nil, fmt.Errorf("write after the other end's FIN: %w", err)
	}
	if err := stream.CloseWrite(); err != nil {
		return nil, err
	}
	noted, err := h.request("recall half", nil)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	if want := fmt.Sprintf("200000 %s", hex.EncodeToString(sum[:])); string(noted) != want {
		return nil, fmt.Errorf("eof-first: %q, wanted %q", noted, want)
	}
	return result{}, nil
}

// scenarioOpenBack: the other end opens count (20) streams to us.
func scenarioOpenBack(h *host, numbers []int) (result, error) {
	count := numberOr(numbers, 0, 20)
	answer, err := h.request(fmt.Sprintf("open-back %d", count), nil)
	if err == nil && string(answer) != "ok" {
		err = fmt.Errorf("%s", answer)
	}
	return result{"streams": count}, err
}

func (h *host) mustEcho(text string) error {
	answer, err := h.request("echo", []byte(text))
	if err == nil && string(answer) != text {
		err = fmt.Errorf("echo of %q is %q", text, answer)
	}
	return err
}

// scenarioIdle: nothing but heartbeats for some milliseconds (14,000), then the session still works.
func scenarioIdle(h *host, numbers []int) (result, error) {
	if err := h.mustEcho("before"); err != nil {
		return nil, err
	}
	time.Sleep(time.Duration(numberOr(numbers, 0, 14_000)) * time.Millisecond)
	if err := h.mustEcho("after"); err != nil {
		return nil, fmt.Errorf("after the pause: %w", err)
	}
	_ = h.session.Close()
	ending := h.session.Wait()
	return result{"beats": ending.Beats, "missed": ending.Missed}, nil
}

// scenarioClose: we close; what the other end made of it is in its own words.
func scenarioClose(h *host, _ []int) (result, error) {
	if err := h.mustEcho("hello"); err != nil {
		return nil, err
	}
	return result{}, h.session.Close()
}

// scenarioPeerClose: the other end closes, and for us that is a clean end.
func scenarioPeerClose(h *host, _ []int) (result, error) {
	if err := h.mustEcho("hello"); err != nil {
		return nil, err
	}
	// The answer may be an end or an error: the session goes away under the stream.
	_, _ = h.request("close", nil)
	ending := h.session.Wait()
	if !ending.Clean {
		return nil, fmt.Errorf("not a clean end: %+v", ending)
	}
	return result{"ending": ending}, nil
}

// scenarioOverrun: count (300) streams while the other end accepts none for some milliseconds
// (1,000). Each is either served in the end or refused, and the session lives on.
func scenarioOverrun(h *host, numbers []int) (result, error) {
	count, pause := numberOr(numbers, 0, 300), numberOr(numbers, 1, 1000)
	answer, err := h.request(fmt.Sprintf("pause %d", pause), nil)
	if err != nil || string(answer) != "paused" {
		return nil, fmt.Errorf("pause: %q, %v", answer, err)
	}
	var mu sync.Mutex
	served, refused, words := 0, map[string]int{}, ""
	_ = together(count, func(i int) error {
		text := fmt.Sprintf("overrun %d", i)
		answer, err := h.request("echo", []byte(text))
		mu.Lock()
		defer mu.Unlock()
		if err == nil && string(answer) == text {
			served++
		} else if err == nil {
			words = fmt.Sprintf("stream %d: %q", i, answer)
		} else if code, ok := h.session.ResetCode(err); ok {
			refused[strconv.Itoa(int(code))]++
		} else {
			words = fmt.Sprintf("stream %d: %v", i, err)
		}
		return nil
	})
	if words != "" {
		return nil, fmt.Errorf("neither served nor refused: %s", words)
	}
	// One that was refused may leave the queue as full as it was: the pause must be over.
	time.Sleep(time.Duration(pause) * time.Millisecond)
	if err := h.mustEcho("alive"); err != nil {
		return nil, fmt.Errorf("the session did not survive: %w", err)
	}
	return result{"served": served, "refused": refused}, nil
}

func (h *host) startHalves(count int) ([]*twoHalves, error) {
	running := make([]*twoHalves, count)
	err := together(count, func(i int) (err error) {
		running[i], err = h.startHalf(i)
		return err
	})
	return running, err
}

// scenarioGoAwayRunning: the other end sends GOAWAY while count (10) streams of ours run, with a
// code (0); they run to their end, and no new one can be opened meanwhile.
func scenarioGoAwayRunning(h *host, numbers []int) (result, error) {
	running, err := h.startHalves(numberOr(numbers, 0, 10))
	if err != nil {
		return nil, err
	}
	answer, err := h.request(fmt.Sprintf("goaway %d", numberOr(numbers, 1, 0)), nil)
	if err != nil || string(answer) != "gone" {
		return nil, fmt.Errorf("goaway: %q, %v", answer, err)
	}
	_, err = h.request("echo", nil)
	if err == nil {
		return nil, fmt.Errorf("a stream was opened in spite of the GOAWAY")
	}
	refused := err.Error()
	if err := together(len(running), func(i int) error { return running[i].finish() }); err != nil {
		return nil, fmt.Errorf("after GOAWAY: %w", err)
	}
	_ = h.session.Close()
	return result{"refused": refused, "ending": h.session.Wait()}, nil
}

// scenarioSelfGoAway: the same with our own GOAWAY. Our streams run to their end, and the other
// end, asked to open one meanwhile, tells why it can't.
func scenarioSelfGoAway(h *host, numbers []int) (result, error) {
	running, err := h.startHalves(numberOr(numbers, 0, 10))
	if err != nil {
		return nil, err
	}
	if err := h.session.GoAway(0, "going away"); err != nil {
		return nil, err
	}
	answer, err := h.request("open-back 1", nil)
	if err != nil {
		return nil, fmt.Errorf("our own next stream: %w", err)
	}
	if err := together(len(running), func(i int) error { return running[i].finish() }); err != nil {
		return nil, fmt.Errorf("after GOAWAY: %w", err)
	}
	return result{"streams": len(running), "answer": string(answer)}, nil
}

// scenarioLeave: we send GOAWAY with a code (2) and end the transport; what the other end made of
// it is in its own words.
func scenarioLeave(h *host, numbers []int) (result, error) {
	if err := h.mustEcho("hello"); err != nil {
		return nil, err
	}
	return result{}, h.session.Leave(uint32(numberOr(numbers, 0, 2)), "going away")
}

// scenarioAwait: the other end does something of its own, and notes "done" with what came of it.
func scenarioAwait(h *host, _ []int) (result, error) {
	noted, err := h.request("recall done", nil)
	return result{"noted": string(noted)}, err
}

// scenarioTyped: the other end knows the type (305419896) of a stream.
func scenarioTyped(h *host, numbers []int) (result, error) {
	streamType := numberOr(numbers, 0, 0x12345678)
	answer, err := h.requestTyped(uint32(streamType), "type", nil)
	if err == nil && string(answer) != strconv.Itoa(streamType) {
		err = fmt.Errorf("type %q, wanted %d", answer, streamType)
	}
	return result{"type": streamType}, err
}

// scenarioSeedExchange: what the client in the seed's README does. Two streams, each given its
// data and FIN by one HalfClose, then everything is read and must be what was sent.
func scenarioSeedExchange(h *host, _ []int) (result, error) {
	payloads := [][]byte{bytes.Repeat([]byte("1"), 16), bytes.Repeat([]byte("2"), 19)}
	return result{}, together(len(payloads), func(i int) error {
		stream, err := h.session.Open(0)
		if err != nil {
			return err
		}
		if err := halfCloseWith(stream, payloads[i]); err != nil {
			return err
		}
		got, err := io.ReadAll(stream)
		if err == nil && !bytes.Equal(got, payloads[i]) {
			err = fmt.Errorf("got %q back, sent %q", got, payloads[i])
		}
		return err
	})
}
