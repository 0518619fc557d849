package h2

import "sync"

// Sending is held to two windows: the stream's and the connection's (RFC 9113 5.2). A stream's window is not kept as a number but as its
// distance from the peer's SETTINGS_INITIAL_WINDOW_SIZE, so that a change of that setting moves the windows of all streams at once:
//
//	initial 65535, stream 5 sent 1000        distance  -1000, window 64535
//	SETTINGS_INITIAL_WINDOW_SIZE = 500       distance  -1000, window  -500 (RFC 9113 6.9.2)
//	WINDOW_UPDATE of stream 5, 2000          distance   1000, window  1500
//
// Who finds its stream's window closed waits for that stream alone. Who finds the connection's closed waits in a queue: each in turn takes what it
// needs, which is a frame at most, and wakes the next, so that large bodies share the connection evenly.

// Credit is what may be sent on one connection. Its methods are safe for concurrent use.
type Credit struct {
	mu          sync.Mutex // guards all below, and the Windows
	left        int64
	initial     int64
	err         error
	windows     *Window // those that have something to remember
	first, last *Window // those that wait for the connection's window
}

// Window is what may be sent on one stream. It is part of its stream and used again with it. Take and TryTake belong to one goroutine at a
// time.
type Window struct {
	credit   *Credit
	distance int64 // from credit.initial
	err      error
	known    bool // in credit.windows
	queued   bool // in the queue
	waiting  bool // in Take
	wake     sync.Cond

	before, behind *Window // in credit.windows
	next           *Window // in the queue
}

// Init makes the credit that of a new connection.
func (c *Credit) Init() { *c = Credit{left: InitialWindow, initial: InitialWindow} }

// Add takes a WINDOW_UPDATE of the connection. The error is a *ConnError.
func (c *Credit) Add(n uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left += int64(n); c.left > MaxWindow {
		return &ConnError{FlowControlError, "WINDOW_UPDATE opens the connection's window beyond 2^31-1"}
	}
	c.wakeFirst()
	return nil
}

// SetInitial takes the peer's SETTINGS_INITIAL_WINDOW_SIZE, which holds for streams that are open, too. The error is a *ConnError.
func (c *Credit) SetInitial(n uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.initial = int64(n)
	for w := c.windows; w != nil; w = w.behind {
		if w.room() > MaxWindow {
			return &ConnError{FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE opens a stream's window beyond 2^31-1"}
		}
		w.signal()
	}
	return nil
}

// Fail ends every Take, now and later, with err.
func (c *Credit) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	for w := c.windows; w != nil; w = w.behind {
		w.signal()
	}
}

// wakeFirst is called with mu held, as all below.
func (c *Credit) wakeFirst() {
	if c.first != nil && c.left > 0 {
		c.first.signal()
	}
}

func (c *Credit) enqueue(w *Window) {
	if w.queued {
		return
	}
	w.queued, w.next = true, nil
	if c.last == nil {
		c.first = w
	} else {
		c.last.next = w
	}
	c.last = w
}

// dequeue takes w out of the queue, and wakes who is first then.
func (c *Credit) dequeue(w *Window) {
	if !w.queued {
		return
	}
	var before *Window
	for at := c.first; at != w; at = at.next {
		before = at
	}
	if before == nil {
		c.first = w.next
	} else {
		before.next = w.next
	}
	if c.last == w {
		c.last = before
	}
	w.queued, w.next = false, nil
	c.wakeFirst()
}

// Init makes w the window of a new stream on c.
func (w *Window) Init(c *Credit) {
	*w = Window{credit: c}
	w.wake.L = &c.mu
}

// know lists w, so that SetInitial and Fail find it.
func (w *Window) know() {
	if w.known {
		return
	}
	c := w.credit
	w.known, w.before, w.behind = true, nil, c.windows
	if c.windows != nil {
		c.windows.before = w
	}
	c.windows = w
}

func (w *Window) room() int64 { return w.credit.initial + w.distance }

func (w *Window) signal() {
	if w.waiting {
		w.wake.Signal()
	}
}

// Add takes a WINDOW_UPDATE of the stream. It reports false when that opens the window beyond its bound: a stream error of FlowControlError.
func (w *Window) Add(n uint32) bool {
	c := w.credit
	c.mu.Lock()
	defer c.mu.Unlock()
	w.know()
	w.distance += int64(n)
	w.signal()
	return w.room() <= MaxWindow
}

// TryTake takes n bytes from both windows, or nothing when that would have to wait.
func (w *Window) TryTake(n int) bool {
	c := w.credit
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || w.err != nil || c.first != nil || c.left < int64(n) || w.room() < int64(n) {
		return false
	}
	w.take(int64(n))
	return true
}

func (w *Window) take(n int64) {
	w.know()
	w.distance -= n
	w.credit.left -= n
}

// Take waits until both windows are open and takes up to most bytes from them, most at least 1. The error is Fail's.
func (w *Window) Take(most int) (int, error) {
	c := w.credit
	c.mu.Lock()
	defer c.mu.Unlock()
	w.know()
	w.waiting = true
	defer func() {
		c.dequeue(w)
		w.waiting = false
	}()
	for {
		switch room := min(int64(most), w.room()); {
		case w.err != nil:
			return 0, w.err
		case c.err != nil:
			return 0, c.err
		case room <= 0:
			c.dequeue(w) // not to hold up others
		case c.left > 0 && (c.first == nil || c.first == w):
			n := min(room, c.left)
			w.take(n)
			return int(n), nil
		default:
			c.enqueue(w)
		}
		w.wake.Wait()
	}
}

// Fail ends Take, now or later, with err: the stream was reset.
func (w *Window) Fail(err error) {
	c := w.credit
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.signal()
}

// Close forgets the window: its stream is over and nobody is in Take.
func (w *Window) Close() {
	c := w.credit
	c.mu.Lock()
	defer c.mu.Unlock()
	if !w.known {
		return
	}
	if w.before == nil {
		c.windows = w.behind
	} else {
		w.before.behind = w.behind
	}
	if w.behind != nil {
		w.behind.before = w.before
	}
	w.known, w.before, w.behind = false, nil, nil
}
