package gateway

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// requestBody is the client's body as the Engine reads it: counted, kept for another attempt as far as the bound allows, and copied to
// mirrors. One goroutine reads at a time; Rewind is called between attempts only.
type requestBody struct {
	source exchange.Body
	count  atomic.Int64

	keep     int // bytes that may be kept for replay; 0 when no replay is wanted
	kept     []byte
	position int // of the current attempt within kept
	lost     bool
	end      error   // what the source ended with
	beyond   [1]byte // see whole

	mirrors []*mirrorBody
}

// reset makes the body ready for another exchange.
func (b *requestBody) reset() {
	clear(b.mirrors)
	b.source, b.end, b.kept, b.mirrors = nil, nil, nil, b.mirrors[:0]
	b.keep, b.position, b.lost = 0, 0, false
	b.count.Store(0)
}

// Ready tells what lies in memory already.
func (b *requestBody) Ready() (n int, whole bool) {
	if b.position < len(b.kept) {
		return len(b.kept) - b.position, b.end == io.EOF
	}
	if b.end != nil {
		return 0, b.end == io.EOF
	}
	n, whole = ready(b.source)
	if !whole && n > 0 && b.count.Load()+int64(n) == b.source.Length() {
		n-- // the last byte waits for the end
	}
	return n, whole
}

// Read replays what was kept, then reads on.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.position < len(b.kept) {
		n := copy(p, b.kept[b.position:])
		b.position += n
		return n, nil
	}
	if b.end != nil {
		return 0, b.end
	}
	n, err := b.source.Read(p)
	if b.count.Add(int64(n)) == b.source.Length() && err == nil {
		err = b.whole()
	}
	b.record(p[:n])
	for _, m := range b.mirrors {
		m.offer(p[:n], err)
	}
	b.end = err
	return n, err
}

// whole waits for the end of a body of which every byte is there that its length promised. Over HTTP/2 and HTTP/3 the length and the end are said apart,
// and a client that goes on beyond the length must not have its request carried out first.
func (b *requestBody) whole() error {
	n, err := b.source.Read(b.beyond[:])
	if n > 0 {
		return exchange.NewFault(exchange.BadRequest, errLonger)
	}
	return err
}

var errLonger = errors.New("the body is longer than content-length says")

func (b *requestBody) record(p []byte) {
	switch {
	case b.keep == 0 || b.lost:
		b.lost = b.lost || len(p) > 0
	case len(b.kept)+len(p) > b.keep:
		b.lost, b.kept, b.position = true, nil, 0
	default:
		b.kept = append(b.kept, p...)
		b.position = len(b.kept)
	}
}

// Rewind makes the body readable from its start again, and reports whether that is possible.
func (b *requestBody) Rewind() bool {
	if b.lost {
		return false
	}
	b.position = 0
	return true
}

// Close gives the client's body up.
func (b *requestBody) Close() error { return b.source.Close() }

// Length is the body's length, -1 when unknown.
func (b *requestBody) Length() int64 { return b.source.Length() }

// Trailers are the client's, without what must not stand in a trailer.
func (b *requestBody) Trailers() exchange.Fields { return allowedTrailers(b.source.Trailers()) }

// mirrorBody is a copy of a request body on its way to a mirror. It takes what the client sends as it comes and never makes the
// request wait: a mirror that falls behind by more than mirrorWindow loses its copy.
type mirrorBody struct {
	length int64

	mu     sync.Mutex
	change sync.Cond
	chunks []byte // guarded by mu
	end    error  // guarded by mu
}

// mirrorWindow is how far a mirror may fall behind, in bytes.
const mirrorWindow = 1 << 20

var errMirrorBehind = errors.New("the mirror fell behind the request; its copy was cut")

func newMirrorBody(length int64) *mirrorBody {
	m := &mirrorBody{length: length}
	m.change.L = &m.mu
	return m
}

// offer adds bytes and, with err, the end.
func (m *mirrorBody) offer(p []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.end != nil {
		return
	}
	if len(m.chunks)+len(p) > mirrorWindow {
		m.end, m.chunks = errMirrorBehind, nil
	} else {
		m.chunks = append(m.chunks, p...)
		m.end = err
	}
	m.change.Broadcast()
}

// Read waits for bytes or the end.
func (m *mirrorBody) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.chunks) == 0 && m.end == nil {
		m.change.Wait()
	}
	if len(m.chunks) > 0 {
		n := copy(p, m.chunks)
		m.chunks = m.chunks[n:]
		return n, nil
	}
	return 0, m.end
}

// Close makes further offers cost nothing.
func (m *mirrorBody) Close() error {
	m.offer(nil, io.ErrClosedPipe)
	return nil
}

// Length is the request's.
func (m *mirrorBody) Length() int64 { return m.length }

// Trailers are not mirrored.
func (m *mirrorBody) Trailers() exchange.Fields { return nil }
