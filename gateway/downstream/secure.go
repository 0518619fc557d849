package downstream

import (
	"crypto/tls"
	"errors"
	"sync"

	"gatehouse.dev/gatehouse/gateway/sock"
)

// secureConn is a client's TLS connection. It differs from a plain tls.Conn in how it uses the socket:
//
// crypto/tls writes each record by itself, 16 KiB at most, in smaller ones while a connection is young. Here the records of one Write
// leave together:
//
//	Write(64 KiB) -> tls.Conn -> 4 records of 16 KiB -> wire, which gathers -> 1 write to the socket
//
// And crypto/tls only knows reads that wait. Within sock.Conn.Serve, tryRead reads what is there: the wire then answers with an error
// that says "timeout", after which a tls.Conn can be read on.
type secureConn struct {
	*tls.Conn
	wire wire
}

func newSecure(s *sock.Conn, config *tls.Config) *secureConn {
	c := &secureConn{wire: wire{Conn: s}}
	c.Conn = tls.Server(&c.wire, config)
	return c
}

// smallRecord is a size that always fits one record: gathering would only copy it.
const smallRecord = 1 << 10

// Write sends p, whatever number of records it takes, in as few writes to the socket as possible.
func (c *secureConn) Write(p []byte) (int, error) {
	if len(p) <= smallRecord {
		return c.Conn.Write(p)
	}
	c.wire.hold()
	n, err := c.Conn.Write(p)
	if sent := c.wire.release(); err == nil {
		err = sent
	}
	return n, err
}

// fresh tells that the socket may have more to read than at the last tryRead.
func (c *secureConn) fresh() { c.wire.empty = false }

// tryRead reads what is there, within the Serve of the socket. It returns sock.ErrAgain when that is nothing.
func (c *secureConn) tryRead(p []byte) (int, error) {
	c.wire.polling = true
	n, err := c.Conn.Read(p)
	c.wire.polling = false
	if n == 0 && errors.Is(err, errNothingYet) {
		return 0, sock.ErrAgain
	}
	return n, err
}

// wire is the socket as crypto/tls sees it.
type wire struct {
	*sock.Conn
	polling bool // reads must not wait; of the goroutine that reads
	empty   bool // the socket was read empty; of the goroutine that reads

	opening opening // of the goroutine that does the handshake

	mu      sync.Mutex
	holding int    // Writes that want their records gathered; guarded by mu
	held    *chunk // nil when nothing is; guarded by mu
	failed  error  // what a write ended with; guarded by mu
}

// chunk is memory for records on their way.
type chunk struct{ data []byte }

// chunkSize is room for four full records.
const chunkSize = 4 * (16<<10 + 256)

var chunks = sync.Pool{New: func() any { return &chunk{data: make([]byte, 0, chunkSize)} }}

// nothingYet is a net.Error of the kind that a read deadline ends with.
type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing to read now" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

var errNothingYet error = nothingYet{}

// Read reads from the socket.
func (w *wire) Read(p []byte) (int, error) {
	if w.opening.keep {
		return w.readHello(p)
	}
	if !w.polling {
		return w.Conn.Read(p)
	}
	if w.empty {
		return 0, errNothingYet
	}
	n, err := w.TryRead(p)
	// Less than there was room for was all there is; see sock.Conn.Serve.
	w.empty = n < len(p)
	if errors.Is(err, sock.ErrAgain) {
		err = errNothingYet
	}
	return n, err
}

// Write writes to the socket, or gathers.
func (w *wire) Write(p []byte) (int, error) {
	if w.opening.silent || w.opening.mute {
		return len(p), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return 0, w.failed
	}
	if w.holding == 0 {
		return w.Conn.Write(p)
	}
	if w.held != nil && len(w.held.data)+len(p) > cap(w.held.data) {
		if err := w.send(); err != nil {
			return 0, err
		}
	}
	if w.held == nil {
		w.held, _ = chunks.Get().(*chunk)
	}
	w.held.data = append(w.held.data, p...)
	return len(p), nil
}

func (w *wire) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holding++
}

func (w *wire) release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holding--
	if w.holding > 0 {
		return nil
	}
	return w.send()
}

// send writes what was gathered. It is called with mu held.
func (w *wire) send() error {
	if w.failed != nil || w.held == nil {
		return w.failed
	}
	_, w.failed = w.Conn.Write(w.held.data)
	w.held.data = w.held.data[:0]
	chunks.Put(w.held)
	w.held = nil
	return w.failed
}
