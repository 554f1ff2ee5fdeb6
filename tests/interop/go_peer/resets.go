package peer

import (
	"fmt"
	"io"
	"time"
)

// resetByTheOtherEnd asks for an RST with a code and describes what came under our writes.
func (h *host) resetByTheOtherEnd(code int) (string, error) {
	stream, err := h.begin(fmt.Sprintf("reset %d", code))
	if err != nil {
		return "", err
	}
	for i := 0; i < 2000; i++ {
		if _, err := stream.Write([]byte("more")); err != nil {
			return h.describe(err), nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return "", fmt.Errorf("no RST came for data on a stream that was reset")
}

// resetHere resets a stream under the other end's writes, which describes what came.
func (h *host) resetHere(code int) (string, error) {
	flood, err := h.begin(fmt.Sprintf("flood %d", code))
	if err != nil {
		return "", err
	}
	if _, err := io.ReadFull(flood, make([]byte, 10_000)); err != nil {
		return "", err
	}
	if err := h.session.Reset(flood, uint32(code)); err != nil {
		return "", err
	}
	sent, err := h.request(fmt.Sprintf("recall %d", code), nil)
	return string(sent), err
}

// scenarioReset: for each code the other end resets a stream, and then we do.
func scenarioReset(h *host, codes []int) (result, error) {
	received, sent := make([]string, len(codes)), make([]string, len(codes))
	for i, code := range codes {
		var err error
		if received[i], err = h.resetByTheOtherEnd(code); err != nil {
			return nil, err
		}
		if sent[i], err = h.resetHere(code); err != nil {
			return nil, err
		}
	}
	if err := h.mustEcho("alive"); err != nil {
		return nil, err
	}
	return result{"received": received, "sent": sent}, nil
}
