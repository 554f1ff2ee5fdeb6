package peer

// The pattern's period is a prime: data that is shifted by a window, a frame or any other power
// of two is found out, which a period of 64 KiB would hide.
const patternPeriod = 65521

var patternBlock = func() []byte {
	block := make([]byte, patternPeriod)
	for i := range block {
		block[i] = byte(i*7 + i>>8)
	}
	return block
}()

// pattern is length bytes of the endless pattern, from offset on.
func pattern(offset, length int) []byte {
	out := make([]byte, 0, length)
	offset %= patternPeriod
	for len(out) < length {
		n := min(length-len(out), patternPeriod-offset)
		out = append(out, patternBlock[offset:offset+n]...)
		offset = 0
	}
	return out
}
