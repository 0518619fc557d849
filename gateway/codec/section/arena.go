package section

import (
	"unsafe"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Arena is memory for the names and values of one exchange. What was taken from it stays where it is until Reset; a stream has one and
// uses it again for the next exchange, so that decoding allocates nothing once it is large enough.
//
// The zero Arena is ready. It is not safe for concurrent use, but the strings are plain memory that anybody may read.
type Arena struct {
	chunk []byte // len is what is taken; earlier, smaller chunks live as long as the views into them
}

const (
	firstChunk = 1 << 10
	// largestKept is the largest chunk that outlives Reset: one exchange with large fields does not make its stream large for good.
	largestKept = 16 << 10
)

// Room returns free memory of at least n bytes: an empty slice with that capacity, to be appended to and given to Take.
func (a *Arena) Room(n int) []byte {
	if cap(a.chunk)-len(a.chunk) < n {
		a.chunk = make([]byte, 0, max(firstChunk, 2*cap(a.chunk), n))
	}
	return a.chunk[len(a.chunk):len(a.chunk):cap(a.chunk)]
}

// Take makes what was appended to Room's slice, without growing it, a string.
func (a *Arena) Take(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	a.chunk = a.chunk[:len(a.chunk)+len(b)]
	return unsafe.String(&b[0], len(b))
}

// Copy returns a copy of b.
func (a *Arena) Copy(b []byte) string { return a.Take(append(a.Room(len(b)), b...)) }

// CopyString returns a copy of s.
func (a *Arena) CopyString(s string) string { return a.Take(append(a.Room(len(s)), s...)) }

// Reset makes all memory free again. Nothing taken before may be used.
func (a *Arena) Reset() {
	exchange.Poison(a.chunk)
	if cap(a.chunk) > largestKept {
		a.chunk = nil
	}
	a.chunk = a.chunk[:0]
}
