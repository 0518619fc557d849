package h2

import (
	"sync/atomic"
	"time"
)

// A receive window that is smaller than what the path holds in flight slows a transfer down; one that is larger than needed is memory that a
// peer can fill. So a window begins small and doubles whenever its half was consumed in less time than two round trips: the peer then
// probably stood still and waited for WINDOW_UPDATE.
//
//	window 64 KiB, round trip 20 ms: 32 KiB consumed in 10 ms -> 128 KiB, in 12 ms -> 256 KiB, ... in 60 ms: large enough
//
// It never grows for a reader that is slow itself, because then the time is longer. The round trip is measured by PING, sent with a
// WINDOW_UPDATE, so that a connection without large transfers is never asked.

// Tuner knows the round-trip time of one connection. Its methods are safe for concurrent use.
type Tuner struct {
	trip atomic.Int64 // nanoseconds; the least seen; 0 unknown
	sent atomic.Int64 // when the probe under way was sent; 0: none is
	next atomic.Int64 // no probe is sent before
}

// ProbePing returns what the PING that measures carries.
func ProbePing() [8]byte { return [8]byte{'r', 'o', 'u', 'n', 'd', 't', 'r', 'p'} }

// probePeriod is how often the round trip is measured while windows are given back.
const probePeriod = 10 * time.Second

// Probe reports whether a PING with ProbePing should be sent now, at this time in nanoseconds. One is under way at most.
func (t *Tuner) Probe(now int64) bool {
	return now >= t.next.Load() && t.sent.CompareAndSwap(0, now)
}

// Acked takes the answer to the probe, at this time in nanoseconds.
func (t *Tuner) Acked(now int64) {
	sent := t.sent.Load()
	if sent == 0 {
		return
	}
	took := max(now-sent, 1)
	if before := t.trip.Load(); before == 0 || took < before {
		t.trip.Store(took)
	}
	t.next.Store(now + int64(probePeriod))
	t.sent.Store(0)
}

// Receive is a receive window, a connection's or a stream's. It is not safe for concurrent use.
type Receive struct {
	tuner *Tuner
	size  int64 // what the peer may send ahead of the reader
	most  int64
	left  int64 // what the peer may send now
	owed  int64 // consumed, and not given back yet
	since int64 // when the peer was last given something, in nanoseconds
}

// Init makes r a window that the peer takes for size bytes large, and that grows up to most. tuner nil keeps the size.
func (r *Receive) Init(tuner *Tuner, size, most int) {
	*r = Receive{tuner: tuner, size: int64(size), most: int64(most), left: int64(size)}
}

// Got counts n bytes that came, padding included. It reports false when the window was smaller: FlowControlError.
func (r *Receive) Got(n int) bool {
	r.left -= int64(n)
	return r.left >= 0
}

// Due reports whether Done would give something back once n bytes more are consumed. It saves a look at the clock.
func (r *Receive) Due(n int) bool { return r.owed+int64(n) >= r.size/2 }

// Done counts n bytes as consumed at this time in nanoseconds. When it is more than 0 the result is what to give back by WINDOW_UPDATE: at the
// latest when half of the window is consumed, and more than that when the window grows.
func (r *Receive) Done(n int, now int64) uint32 {
	r.owed += int64(n)
	if r.owed < r.size/2 || r.owed == 0 {
		return 0
	}
	give := r.owed
	if r.tuner != nil && r.size < r.most && r.since != 0 {
		if trip := r.tuner.trip.Load(); trip > 0 && now-r.since < 2*trip {
			larger := min(2*r.size, r.most)
			give += larger - r.size
			r.size = larger
		}
	}
	r.owed, r.since = 0, now
	r.left += give
	return uint32(give)
}
