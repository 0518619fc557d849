package h2

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// Output is the writing half of a connection that many goroutines share. They append whole frames to one buffer; whoever then flushes and
// finds nobody writing becomes the writer. A writer yields to the scheduler once before it writes, so that the goroutines that are about
// to append do so first, and goes on as long as there is something: the frames of many streams leave in one write.
//
//	stream 1: append HEADERS, DATA   Flush: nobody writes; yields  ........  writes the frames of 1, 3 and 5
//	stream 3:                                 append HEADERS, DATA   Flush: returns
//	stream 5:                                        append HEADERS, DATA   Flush: returns
//
// What is unwritten is bounded: frames of streams wait, in the order of their priority (RFC 9218), while there is much of it; a peer that
// makes the gateway answer with control frames and does not read them loses its connection.
//
// Appending goes between Begin, or BeginStream, and End, which hold a lock:
//
//	buf := out.Begin()
//	out.End(AppendPing(buf, true, data))
//	out.Flush()
//
// The zero Output is not ready; Init makes it so. Its methods are safe for concurrent use.
type Output struct {
	w io.Writer

	mu      sync.Mutex
	memory  *[]byte       // of buf, from a pool; nil while nothing is appended; guarded by mu
	buf     []byte        // appended, not yet taken by the writer; guarded by mu
	from    int           // len(buf) at Begin; guarded by mu
	turn    *Turn         // of BeginStream, nil of Begin; guarded by mu
	batch   uint64        // counts the buffers; an offset holds for one; guarded by mu
	control int           // bytes of control frames in buf; guarded by mu
	writing bool          // somebody is the writer; guarded by mu
	idle    chan struct{} // made by who waits for the writer, closed by it; guarded by mu
	err     error         // guarded by mu
	waiting *Turn         // those that wait, the next one first; guarded by mu

	writes atomic.Uint64 // odd while a write is under way
}

const (
	// streamRoom is how many bytes may be unwritten, beside those being written, when a stream appends more.
	streamRoom = 64 << 10
	// controlRoom is the same for control frames, which do not wait: over it the connection ends.
	controlRoom = 64 << 10
	// mostWritten bounds one write, so that a peer that reads slowly is told from one that does not read.
	mostWritten = 64 << 10
	// writerRounds is how often a writer writes what came meanwhile before somebody else takes over: it has its own work to do.
	writerRounds = 4
	// firstOutput and largestOutput are the sizes of buffers that are used again.
	firstOutput   = 4 << 10
	largestOutput = 160 << 10
)

var outputPool = sync.Pool{New: func() any { b := make([]byte, 0, firstOutput); return &b }}

// ErrNotReading is a peer that causes control frames and does not read them.
var ErrNotReading = errors.New("the peer does not read the answers that it causes")

// ErrClosed is a connection that was closed by its owner.
var ErrClosed = errors.New("the connection was closed")

// Turn is a stream's place in an Output: its priority, and where its last frame stands. The zero Turn is not ready; Init makes it so.
type Turn struct {
	// All but wake is guarded by Output.mu.
	urgency     uint8
	incremental bool
	stream      uint32
	queued      bool
	granted     bool
	err         error
	next        *Turn
	batch       uint64 // of the buffer that holds the stream's last frame
	at          int    // and where

	wake chan struct{} // has room for one
}

// Init makes the Turn ready for a stream that has the default priority (RFC 9218 4). A Turn may be used again.
func (t *Turn) Init(stream uint32) {
	wake := t.wake
	if wake == nil {
		wake = make(chan struct{}, 1)
	}
	select { // of its last stream
	case <-wake:
	default:
	}
	*t = Turn{urgency: DefaultUrgency, stream: stream, wake: wake}
}

// Init makes the Output ready to write to w.
func (o *Output) Init(w io.Writer) { o.w, o.batch = w, 1 }

// Begin locks the Output for control frames and returns the buffer to append them to. It never waits for the peer. After a failure what is
// appended goes nowhere.
func (o *Output) Begin() []byte {
	o.mu.Lock()
	return o.begin(nil)
}

func (o *Output) begin(t *Turn) []byte {
	if o.memory == nil {
		o.memory, _ = outputPool.Get().(*[]byte)
		o.buf = (*o.memory)[:0]
	}
	o.from, o.turn = len(o.buf), t
	return o.buf
}

// BeginStream locks the Output for HEADERS and DATA of t's stream. It waits while much is unwritten; those of higher priority go first. The
// error is the Output's, or Cancel's; End must not be called then.
func (o *Output) BeginStream(t *Turn) ([]byte, error) {
	o.mu.Lock()
	for {
		switch {
		case t.err != nil || o.err != nil:
			o.leave(t)
			o.grant() // what was t's
			err := t.err
			if err == nil {
				err = o.err
			}
			o.mu.Unlock()
			return nil, err
		case len(o.buf) < streamRoom && (t.granted || o.waiting == nil || t.before(o.waiting)):
			o.leave(t)
			return o.begin(t), nil
		}
		o.enter(t)
		o.startWriter() // not this goroutine: the streams that wait are to be served in their order
		o.mu.Unlock()
		<-t.wake
		o.mu.Lock()
	}
}

// End gives the buffer back with what was appended, and unlocks.
func (o *Output) End(buf []byte) {
	o.buf = buf
	if o.turn == nil {
		o.control += len(buf) - o.from
		if o.control > controlRoom {
			o.fail(ErrNotReading)
		}
	} else if next := o.waiting; next != nil && (next.urgency <= o.turn.urgency || !o.writing) {
		// One that is less urgent waits for the next buffer: this one is likely to come back with more.
		o.grant()
	}
	o.turn = nil
	o.mu.Unlock()
}

// Sent notes, between BeginStream and End, that the frame that begins at the offset at of the buffer is the last of t's stream so far.
func (o *Output) Sent(t *Turn, at int) { t.batch, t.at = o.batch, at }

// AppendEnd ends t's stream, between Begin or BeginStream and End: its last frame gets the flag if it is not being written yet, an empty
// DATA frame follows otherwise.
func (o *Output) AppendEnd(buf []byte, t *Turn) []byte {
	if t.batch == o.batch {
		buf[t.at+4] |= byte(FlagEndStream)
		return buf
	}
	return AppendFrameHeader(buf, 0, TypeData, FlagEndStream, t.stream)
}

// Flush writes what is appended, unless somebody does so already. It returns why the Output failed, if it did.
func (o *Output) Flush() error {
	o.mu.Lock()
	if o.writing || len(o.buf) == 0 || o.err != nil {
		err := o.err
		o.mu.Unlock()
		return err
	}
	o.writing = true
	o.mu.Unlock()
	runtime.Gosched()
	return o.write(writerRounds)
}

// Kick has control frames written that are appended, by another goroutine: the one that reads must not wait for the peer.
func (o *Output) Kick() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.control > 0 { // frames of streams are flushed by who appends them
		o.startWriter()
	}
}

// startWriter has a goroutine of its own write, unless somebody does so already. It is called with mu held.
func (o *Output) startWriter() {
	if !o.writing && len(o.buf) > 0 && o.err == nil {
		o.writing = true
		go func() { _ = o.write(-1) }()
	}
}

// write is the writer's work; the caller has set writing. A writer that has work of its own does so many rounds at most.
func (o *Output) write(rounds int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ; len(o.buf) > 0 && o.err == nil; rounds-- {
		if rounds == 0 {
			o.writing = false
			o.startWriter()
			return nil
		}
		memory, buf := o.memory, o.buf
		o.memory, o.buf, o.control = nil, nil, 0
		o.batch++
		o.grant()
		o.mu.Unlock()
		err := o.writeAll(buf)
		o.mu.Lock()
		if cap(buf) <= largestOutput {
			*memory = buf[:0]
			outputPool.Put(memory)
		}
		if err != nil {
			o.fail(err)
		}
	}
	o.writing = false
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
	return o.err
}

func (o *Output) writeAll(buf []byte) error {
	for len(buf) > 0 {
		o.writes.Add(1)
		n, err := o.w.Write(buf[:min(len(buf), mostWritten)])
		o.writes.Add(1)
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	return nil
}

// Progress returns a number that changes with every write; it is odd while one is under way.
func (o *Output) Progress() uint64 { return o.writes.Load() }

// Shut waits until everything is written, or a write failed, and then ends the Output as Fail does.
func (o *Output) Shut(err error) {
	_ = o.Flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.writing {
		if o.idle == nil {
			o.idle = make(chan struct{})
		}
		idle := o.idle
		o.mu.Unlock()
		<-idle
		o.mu.Lock()
	}
	o.fail(err)
}

// Err returns why nothing is written any more, nil while the Output works.
func (o *Output) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// Fail ends the Output: nothing more is written, and who waits gets err. A write under way goes on until it ends by itself. The first failure
// counts.
func (o *Output) Fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail(err)
}

func (o *Output) fail(err error) {
	if o.err != nil {
		return
	}
	o.err = err
	for o.waiting != nil {
		o.dequeue(o.waiting)
	}
}

// Cancel makes the BeginStream of t that waits, and every later one, return err.
func (o *Output) Cancel(t *Turn, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
	if t.queued {
		o.dequeue(t)
	}
}

// Prioritize sets t's priority. It counts from the next wait on.
func (o *Output) Prioritize(t *Turn, p Priority) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t.urgency, t.incremental = p.Urgency, p.Incremental
}

// before is the order of those that wait: by urgency, and within one the streams that are of use only as a whole one after another,
// then the incremental ones in turns.
func (t *Turn) before(other *Turn) bool {
	switch {
	case t.urgency != other.urgency:
		return t.urgency < other.urgency
	case t.incremental != other.incremental:
		return other.incremental
	}
	return !t.incremental && t.stream < other.stream
}

func (o *Output) enter(t *Turn) {
	if t.queued {
		return
	}
	t.queued, t.granted = true, false
	place := &o.waiting
	for *place != nil && !t.before(*place) {
		place = &(*place).next
	}
	t.next, *place = *place, t
}

// leave takes t off the queue if it is on it.
func (o *Output) leave(t *Turn) {
	for place := &o.waiting; t.queued && *place != nil; place = &(*place).next {
		if *place == t {
			*place = t.next
			break
		}
	}
	t.queued, t.granted, t.next = false, false, nil
}

// dequeue takes t off the queue and wakes it.
func (o *Output) dequeue(t *Turn) {
	o.leave(t)
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// grant lets the first of those that wait go when there is room. That one lets the next go, at End.
func (o *Output) grant() {
	if t := o.waiting; t != nil && len(o.buf) < streamRoom {
		o.dequeue(t)
		t.granted = true
	}
}
