// Package sock is TCP connections as the data plane uses them: reads and writes with as few system calls as the kernel's interface
// allows, word of a peer that hangs up while nobody reads, and a way to end whatever waits.
//
// Go reads a socket by trying first and waiting when there is nothing. A proxy waits nearly always: for the answer to what it has just
// sent, for the next request. Two operations here know that and leave the vain try out, which is one system call of six of a small
// proxied request; see RoundTrip and Serve. They rest on how Go's poller works: a socket is registered once, edge-triggered; an
// edge is remembered until the one operation under way waits for it.
//
// The package knows nothing of messages, TLS or the configuration.
package sock

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is a TCP connection. Besides what net.Conn promises, Interrupt and Hung may be called from any goroutine.
type Conn struct {
	*net.TCPConn
	raw     syscall.RawConn
	watcher *Watcher
	token   uint64 // of the watcher's registration; 0 without one
	hung    atomic.Bool

	// What RoundTrip's step works on; it is a field so that the step needs no closure for each call.
	out, in []byte
	n       int
	err     error
	wrote   bool
	ask     func(fd uintptr) bool
	// What Serve's step works on.
	step func() bool
	fd   uintptr
	turn func(fd uintptr) bool
}

// New wraps a connection that nobody has read from. watcher may be nil; Watch then does nothing.
func New(c *net.TCPConn, watcher *Watcher) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	conn := &Conn{TCPConn: c, raw: raw, watcher: watcher}
	conn.ask, conn.turn = conn.askOnce, conn.turnOnce
	return conn, nil
}

// Interrupt makes every operation under way, and every later one, fail with os.ErrDeadlineExceeded until Revive.
func (c *Conn) Interrupt() { _ = c.SetDeadline(time.Unix(1, 0)) }

// Revive undoes Interrupt.
func (c *Conn) Revive() { _ = c.SetDeadline(time.Time{}) }

// Close closes the connection.
func (c *Conn) Close() error {
	c.watcher.forget(c)
	return c.TCPConn.Close()
}

// RoundTrip writes out and reads what comes back: at least one byte, at most len(in). It is meant for a peer that sends nothing unasked: of
// what arrived before the call only an error or the hang-up is sure to be noticed, and the latter through Watch. Nothing else may read or
// write meanwhile. sent tells whether all of out was written; io.EOF is a peer that closed.
func (c *Conn) RoundTrip(out, in []byte) (n int, sent bool, err error) {
	c.out, c.in, c.n, c.err, c.wrote = out, in, 0, nil, false
	err = c.raw.Read(c.ask)
	n, rest := c.n, c.out
	if err == nil {
		err = c.err
	}
	c.out, c.in, c.err = nil, nil, nil
	if err != nil || len(rest) == 0 {
		return n, len(rest) == 0, err
	}
	// The socket's buffer was full: the slow way.
	if _, err := c.Write(rest); err != nil {
		return 0, false, err
	}
	n, err = c.Read(in)
	return n, true, err
}

// askOnce is RoundTrip's step. The poller forgets the edges it has seen when an operation begins, so that the answer's, which comes after
// the write, is never missed. One from before may still be on its way to the poller; it costs a read that finds nothing, or finds what the
// peer sent unasked.
func (c *Conn) askOnce(fd uintptr) bool {
	if !c.wrote {
		c.wrote = true
		n, err := tryWrite(fd, c.out)
		c.out = c.out[max(n, 0):]
		if err != nil && err != syscall.EAGAIN {
			c.err = err
			return true
		}
		return len(c.out) > 0
	}
	n, err := tryRead(fd, c.in)
	if err == syscall.EAGAIN {
		return false
	}
	c.n, c.err = n, err
	return true
}

// Serve calls step whenever there may be something to read, at once the first time, until step returns false or the connection is
// interrupted. step reads with TryRead, and must read until less came than it had room for before it returns true: what is left unread
// brings no other call. Within step nothing may call Read, ReadFrom or RoundTrip.
func (c *Conn) Serve(step func() bool) error {
	c.step = step
	err := c.raw.Read(c.turn)
	c.step = nil
	return err
}

func (c *Conn) turnOnce(fd uintptr) bool {
	c.fd = fd
	return !c.step()
}

// ErrAgain says that there is nothing to read now.
var ErrAgain = errors.New("nothing to read now")

// TryRead reads what is there, within Serve. It returns ErrAgain when that is nothing and io.EOF when the peer closed its side.
func (c *Conn) TryRead(p []byte) (int, error) {
	n, err := tryRead(c.fd, p)
	if err == syscall.EAGAIN {
		return 0, ErrAgain
	}
	return n, err
}

// Readable reports, within Serve, whether TryRead would find something: bytes, the peer's end or an error. It needs less stack than a read.
func (c *Conn) Readable() bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(c.fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err != syscall.EAGAIN
}

func tryRead(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func tryWrite(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// Hung reports whether the peer hung up, as far as Watch has noticed.
func (c *Conn) Hung() bool { return c.hung.Load() }

// Watch has the watcher call hungUp, once and from its own goroutine, when the peer closes or half-closes the connection or it breaks.
// It is called at most once; hungUp nil only sets Hung. hungUp must not wait. After Close it is not called any more, but it may be under
// way. Where the system has no such event nothing happens.
func (c *Conn) Watch(hungUp func()) { c.watcher.watch(c, hungUp) }
