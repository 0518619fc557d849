package h2

import (
	"io"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Inbox is the received DATA of one stream that waits to be read. One goroutine puts, another reads. What waits is bounded by the stream's
// window, which opens as bytes are read.
//
// Bytes go from the connection's read buffer to the reader by the shortest way: when Read waits already, straight into its buffer; else
// into memory of the Inbox. That is a small piece that it always has, and pooled ones while more is waiting; a stream that waits for bytes holds
// none of those.
//
// An Inbox is part of its stream and used again with it, by Init.
type Inbox struct {
	mu   sync.Mutex // guards all below
	wake sync.Cond

	window Receive
	giver  Giver

	small       [smallChunk]byte
	from, to    int // what of small waits
	first, last *chunk
	waiting     int // bytes in small and the chunks

	into []byte // the buffer of the Read that waits; nil for none
	got  int    // what was put into it

	end    bool  // END_STREAM came
	err    error // the stream failed
	closed bool
}

// Giver gives the peer of a stream window back.
type Giver interface {
	// Give sends WINDOW_UPDATE for n bytes. It is called from Read's and from Put's goroutine, which is the connection's and must not wait,
	// with nothing locked.
	Give(n uint32)
}

const (
	smallChunk = 1 << 10
	largeChunk = 16 << 10
)

type chunk struct {
	next     *chunk
	from, to int
	data     [largeChunk]byte
}

// chunks lends the memory of what waits.
var chunks = sync.Pool{New: func() any { return new(chunk) }}

// Init makes the inbox that of a new stream, whose window begins at size bytes and may grow up to most; see Receive.
func (i *Inbox) Init(tuner *Tuner, size, most int, giver Giver) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.wake.L = &i.mu
	i.window.Init(tuner, size, most)
	i.giver = giver
	i.from, i.to, i.waiting, i.into, i.got = 0, 0, 0, nil, 0
	i.end, i.err, i.closed = false, nil, false
}

// Put takes a piece of a DATA frame that counts for size bytes of window; see Frame. It reports false when the window was smaller: a stream or
// connection error of FlowControlError. What comes after End, Fail or Close is dropped.
func (i *Inbox) Put(p []byte, size int) bool {
	i.mu.Lock()
	if !i.window.Got(size) {
		i.mu.Unlock()
		return false
	}
	if i.end || i.err != nil || i.closed {
		i.mu.Unlock()
		return true
	}
	padding := size - len(p)
	if len(i.into) > 0 && len(p) > 0 {
		i.got = copy(i.into, p)
		i.into = nil
		p = p[i.got:]
		i.wake.Signal()
	}
	i.waiting += len(p)
	i.store(p)
	give := i.done(padding) // nobody will read it
	i.mu.Unlock()
	if give > 0 {
		i.giver.Give(give)
	}
	return true
}

// store keeps p until it is read.
func (i *Inbox) store(p []byte) {
	if i.first == nil {
		if i.from == i.to {
			i.from, i.to = 0, 0
		}
		n := copy(i.small[i.to:], p)
		i.to += n
		p = p[n:]
	}
	for len(p) > 0 {
		if i.last == nil || i.last.to == largeChunk {
			c := chunks.Get().(*chunk)
			c.next, c.from, c.to = nil, 0, 0
			if i.last == nil {
				i.first = c
			} else {
				i.last.next = c
			}
			i.last = c
		}
		n := copy(i.last.data[i.last.to:], p)
		i.last.to += n
		p = p[n:]
	}
}

// done counts bytes as consumed and returns what to give back.
func (i *Inbox) done(n int) uint32 {
	if n == 0 || i.end || i.err != nil || i.closed || !i.window.Due(n) {
		i.window.owed += int64(n)
		return 0
	}
	return i.window.Done(n, time.Now().UnixNano())
}

// End says that the peer ended the stream. Trailers must have been stored before.
func (i *Inbox) End() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err == nil {
		i.end = true
	}
	i.wake.Signal()
}

// Fail ends the stream: what waits can be read, then Read returns err. After End it does nothing.
func (i *Inbox) Fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.end && i.err == nil {
		i.err = err
	}
	i.wake.Signal()
}

// Cut ends the stream at once: what waits is dropped, and Read returns err.
func (i *Inbox) Cut(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.free()
	i.end, i.err = false, err
	i.wake.Signal()
}

// Read returns bytes of the stream and waits for them. It returns io.EOF at the end of a whole stream.
func (i *Inbox) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	i.mu.Lock()
	if i.waiting == 0 && i.err == nil && !i.end {
		i.into, i.got = p, 0
		for i.got == 0 && i.waiting == 0 && i.err == nil && !i.end {
			i.wake.Wait()
		}
		i.into = nil
	}
	n := i.got
	i.got = 0
	if n == 0 {
		n = i.load(p)
	}
	if n == 0 {
		err := i.err
		if err == nil {
			err = io.EOF
		}
		i.mu.Unlock()
		return 0, err
	}
	give := i.done(n)
	i.mu.Unlock()
	if give > 0 {
		i.giver.Give(give)
	}
	return n, nil
}

// load copies what waits.
func (i *Inbox) load(p []byte) (n int) {
	n = copy(p, i.small[i.from:i.to])
	i.from += n
	for n < len(p) && i.first != nil {
		c := i.first
		m := copy(p[n:], c.data[c.from:c.to])
		n += m
		c.from += m
		if c.from < c.to {
			break
		}
		i.drop()
	}
	i.waiting -= n
	return n
}

// drop gives the first chunk back.
func (i *Inbox) drop() {
	c := i.first
	i.first = c.next
	if i.first == nil {
		i.last = nil
	}
	exchange.Poison(c.data[:c.to])
	c.next = nil
	chunks.Put(c)
}

// free gives up what waits.
func (i *Inbox) free() {
	for i.first != nil {
		i.drop()
	}
	i.from, i.to, i.waiting = 0, 0, 0
}

// Ready returns how many bytes can be read without waiting, and whether the stream ends behind them.
func (i *Inbox) Ready() (n int, whole bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.waiting, i.end
}

// Whole reports whether the stream was read to its end.
func (i *Inbox) Whole() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.end && i.waiting == 0
}

// Close gives all memory back and drops whatever comes still. Nobody may be in Read.
func (i *Inbox) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.free()
	i.closed, i.giver = true, nil
}
