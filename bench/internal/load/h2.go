package load

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Kind is what the streams of an HTTP/2 connection do.
type h2Kind int

const (
	// h2Get asks for a path.
	h2Get h2Kind = iota
	// grpcUnary sends one message and takes one, a call each.
	grpcUnary
	// grpcStream keeps a call open and sends the next message when the last one came back.
	grpcStream
)

const (
	h2StreamWindow = 1 << 20
	h2ConnWindow   = 1 << 30
)

// h2Conn is the client's side of an HTTP/2 connection. One goroutine, the reader, runs all its streams: it takes an answer, starts the
// stream's next request and sees to it that what several streams have to say leaves in one write, when nothing more is there to be read.
// An open load starts streams from outside as well.
type h2Conn struct {
	kind    h2Kind
	conn    net.Conn
	in      *bufio.Reader
	dec     *hpack.Decoder
	fields  []hpack.HeaderField // the request's
	message []byte
	// got is what the header block that is being read said.
	gotStatus, gotGRPC string
	// done is called by the reader when a request of the slot ended. It may start the next one.
	done func(s *h2Slot, err error)

	mu sync.Mutex
	// The rest is guarded by mu.
	framer *http2.Framer
	out    *bufio.Writer
	enc    *hpack.Encoder
	// block is the encoded request, for good once it no longer changes: the second one consists of references to what the first one put
	// into the dynamic table.
	block   encoded
	blocks  int
	next    uint32
	streams map[uint32]*h2Slot
	// window is what may be sent on the connection, initial what a new stream may send.
	window, initial int64
	// waiting are slots whose message did not fit a window.
	waiting []*h2Slot
	used    uint32
}

type encoded []byte

func (b *encoded) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// h2Slot is one of a connection's concurrent requests: a stream after another, or one stream for good.
type h2Slot struct {
	index int
	conn  *h2Conn
	// began is when the request was sent or, in an open load, when it was due.
	began time.Time

	id     uint32 // 0 between streams
	window int64
	used   uint32
	got    int
	status string
	grpc   string
}

// dialH2 connects, with TLS unless plain, and waits for the server's settings.
func dialH2(address string, plain bool, kind h2Kind, path string) (*h2Conn, error) {
	alpn, scheme := "h2", "https"
	if plain {
		alpn, scheme = "", "http"
	}
	conn, err := dial(address, alpn)
	if err != nil {
		return nil, err
	}
	c := &h2Conn{
		kind: kind, conn: conn, in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriterSize(conn, 64<<10),
		next: 1, streams: map[uint32]*h2Slot{}, window: 65535, initial: 65535,
	}
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.SetReuseFrames()
	c.enc = hpack.NewEncoder(&c.block)
	c.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case ":status":
			c.gotStatus = f.Value
		case "grpc-status":
			c.gotGRPC = f.Value
		}
	})
	method := "GET"
	if kind != h2Get {
		method = "POST"
		c.message = grpcMessage(130)
	}
	for _, f := range [][2]string{{":method", method}, {":scheme", scheme}, {":authority", address}, {":path", path}, {"user-agent", "bench"}} {
		c.fields = append(c.fields, hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if kind != h2Get {
		c.fields = append(c.fields, hpack.HeaderField{Name: "content-type", Value: "application/grpc"}, hpack.HeaderField{Name: "te", Value: "trailers"})
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := c.greet(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return c, nil
}

// grpcMessage is a message of n bytes with its prefix: not compressed, length.
func grpcMessage(n int) []byte {
	m := make([]byte, 5+n)
	binary.BigEndian.PutUint32(m[1:], uint32(n))
	return m
}

// greet exchanges settings (RFC 9113 3.4).
func (c *h2Conn) greet() error {
	if _, err := io.WriteString(c.out, http2.ClientPreface); err != nil {
		return err
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2StreamWindow},
		http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return err
	}
	if err := c.framer.WriteWindowUpdate(0, h2ConnWindow-65535); err != nil {
		return err
	}
	if err := c.out.Flush(); err != nil {
		return err
	}
	f, err := c.framer.ReadFrame()
	if err != nil {
		return fmt.Errorf("no settings: %w", err)
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok {
		return fmt.Errorf("the first frame is %v where settings are due", f.Header())
	}
	return c.settings(settings)
}

// start sends the slot's next request. The caller flushes.
func (c *h2Conn) start(s *h2Slot, began time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.began = began
	if s.id == 0 {
		if err := c.open(s); err != nil {
			return err
		}
	}
	return c.sendMessage(s)
}

// open begins a stream; c.mu is held.
func (c *h2Conn) open(s *h2Slot) error {
	if c.blocks < 2 {
		c.blocks++
		c.block = c.block[:0]
		for _, f := range c.fields {
			if err := c.enc.WriteField(f); err != nil {
				return err
			}
		}
	}
	s.id, s.window, s.used, s.got, s.status, s.grpc = c.next, c.initial, 0, 0, "", ""
	c.next += 2
	c.streams[s.id] = s
	return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: c.block, EndHeaders: true, EndStream: c.message == nil})
}

// sendMessage sends the slot's message, or lets it wait for a window; c.mu is held.
func (c *h2Conn) sendMessage(s *h2Slot) error {
	size := int64(len(c.message))
	if size == 0 {
		return nil
	}
	if c.window < size || s.window < size {
		c.waiting = append(c.waiting, s)
		return nil
	}
	c.window -= size
	s.window -= size
	return c.framer.WriteData(s.id, c.kind == grpcUnary, c.message)
}

// flush sends what start and the reader have written.
func (c *h2Conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Flush()
}

// read runs the connection until it ends.
func (c *h2Conn) read() error {
	for {
		if c.in.Buffered() == 0 {
			if err := c.flush(); err != nil {
				return err
			}
		}
		f, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			err = c.headers(f)
		case *http2.DataFrame:
			err = c.data(f)
		case *http2.RSTStreamFrame:
			if s := c.take(f.StreamID); s != nil {
				c.done(s, fmt.Errorf("stream reset: %v", f.ErrCode))
			}
		case *http2.GoAwayFrame:
			err = fmt.Errorf("the server sent GOAWAY: %v", f.ErrCode)
		default:
			err = c.control(f)
		}
		if err != nil {
			return err
		}
	}
}

// control answers what concerns the connection.
func (c *h2Conn) control(f http2.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
		} else if s := c.streams[f.StreamID]; s != nil {
			s.window += int64(f.Increment)
		}
		waited := c.waiting
		c.waiting = nil
		for _, s := range waited {
			if err := c.sendMessage(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// settings takes over what the server says; c.mu is held, or nobody else has the connection yet.
func (c *h2Conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
		c.enc.SetMaxDynamicTableSizeLimit(v)
		c.blocks = 0
	}
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		for _, s := range c.streams {
			s.window += int64(v) - c.initial
		}
		c.initial = int64(v)
	}
	return c.framer.WriteSettingsAck()
}

// headers reads a header block with its continuations (RFC 9113 6.10): the response's, or trailers.
func (c *h2Conn) headers(f *http2.HeadersFrame) error {
	id, ended, whole := f.StreamID, f.StreamEnded(), f.HeadersEnded()
	c.gotStatus, c.gotGRPC = "", ""
	if _, err := c.dec.Write(f.HeaderBlockFragment()); err != nil {
		return err
	}
	for !whole {
		next, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		more, ok := next.(*http2.ContinuationFrame)
		if !ok {
			return errors.New("a header block without its end")
		}
		if _, err := c.dec.Write(more.HeaderBlockFragment()); err != nil {
			return err
		}
		whole = more.HeadersEnded()
	}
	if err := c.dec.Close(); err != nil {
		return err
	}
	c.mu.Lock()
	s := c.streams[id]
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	if c.gotStatus != "" {
		s.status = c.gotStatus
	}
	if c.gotGRPC != "" {
		s.grpc = c.gotGRPC
	}
	if ended {
		c.finish(s)
	}
	return nil
}

// data counts a body and opens the windows again, in large steps.
func (c *h2Conn) data(f *http2.DataFrame) error {
	c.mu.Lock()
	s := c.streams[f.StreamID]
	err := c.received(f, s)
	c.mu.Unlock()
	if err != nil || s == nil {
		return err
	}
	s.got += len(f.Data())
	if c.kind == grpcStream && s.got >= len(c.message) {
		s.got -= len(c.message)
		c.done(s, nil)
	}
	if f.StreamEnded() {
		c.finish(s)
	}
	return nil
}

func (c *h2Conn) received(f *http2.DataFrame, s *h2Slot) error {
	if c.used += f.Length; c.used > h2ConnWindow/4 {
		if err := c.framer.WriteWindowUpdate(0, c.used); err != nil {
			return err
		}
		c.used = 0
	}
	if s == nil {
		return nil
	}
	if s.used += f.Length; s.used > h2StreamWindow/4 && !f.StreamEnded() {
		if err := c.framer.WriteWindowUpdate(f.StreamID, s.used); err != nil {
			return err
		}
		s.used = 0
	}
	return nil
}

// take removes a stream from the connection and returns its slot.
func (c *h2Conn) take(id uint32) *h2Slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	if s != nil {
		delete(c.streams, id)
		s.id = 0
	}
	return s
}

// finish judges a stream that ended.
func (c *h2Conn) finish(s *h2Slot) {
	c.take(s.id)
	var err error
	switch {
	case s.status != "200":
		err = fmt.Errorf("status %s", s.status)
	case c.kind == grpcUnary && (s.grpc != "0" || s.got != len(c.message)):
		err = fmt.Errorf("grpc-status %q after %d of %d bytes", s.grpc, s.got, len(c.message))
	case c.kind == grpcStream:
		err = fmt.Errorf("the stream ended with grpc-status %q", s.grpc)
	}
	c.done(s, err)
}

// h2Worker keeps one connection busy with the given number of streams.
func h2Worker(t *tally, address string, kind h2Kind, path string, streams int) {
	for !t.run.over() && t.failures < mostFailures {
		c, err := dialH2(address, false, kind, path)
		if err != nil {
			t.ended(0, err)
			continue
		}
		t.run.keep(c.conn)
		c.done = func(s *h2Slot, err error) {
			now := time.Now()
			t.ended(now.Sub(s.began), err)
			if err == nil {
				t.carried(len(c.message))
			}
			if !t.run.over() {
				_ = c.start(s, now) // the reader meets the same error
			}
		}
		for i := range streams {
			if err = c.start(&h2Slot{index: i, conn: c}, time.Now()); err != nil {
				break
			}
		}
		if err == nil {
			err = c.read()
		}
		t.run.drop(c.conn)
		for range c.streams {
			t.ended(0, err)
		}
	}
}
