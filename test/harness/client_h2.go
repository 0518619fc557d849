package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Window is the receive window of a stream; the connection's is far larger, so that one stream read slowly blocks no other.
const h2Window = 1 << 20

// h2Client keeps one connection and dials another when that one goes away.
type h2Client struct {
	opt    ClientOptions
	secure bool

	mu    sync.Mutex // guards what follows
	conn  *H2Conn
	conns []*H2Conn
}

// Open sends the request on the current connection.
func (c *h2Client) Open(req Request) (Stream, error) {
	c.mu.Lock()
	if c.conn == nil || c.conn.gone() {
		conn, err := DialH2(c.opt, c.secure)
		if err != nil {
			c.mu.Unlock()
			return nil, err
		}
		c.conn = conn
		c.conns = append(c.conns, conn)
	}
	conn := c.conn
	c.mu.Unlock()
	return conn.open(req, c.opt.Host)
}

// Close closes the connections.
func (c *h2Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
}

// H2Conn is one HTTP/2 connection, frame by frame.
type H2Conn struct {
	nc     net.Conn
	secure bool
	// Framer reads are the read loop's; writes hold wmu.
	Framer *http2.Framer
	wmu    sync.Mutex
	henc   *hpack.Encoder
	hbuf   bytes.Buffer
	nextID uint32

	mu      sync.Mutex // guards what follows
	change  *sync.Cond
	streams map[uint32]*h2Stream
	window  int64
	initial int64
	frame   int
	// Extended says that the server announced SETTINGS_ENABLE_CONNECT_PROTOCOL.
	extended bool
	settled  bool
	goaway   *http2.GoAwayFrame
	err      error
	done     chan struct{}
}

// DialH2 opens a connection and waits for the server's SETTINGS.
func DialH2(opt ClientOptions, secure bool) (*H2Conn, error) {
	nc, err := dial(opt, secure)
	if err != nil {
		return nil, err
	}
	c := &H2Conn{
		nc: nc, secure: secure, Framer: http2.NewFramer(nc, nc), nextID: 1, window: 65535, initial: 65535, frame: 16384,
		streams: map[uint32]*h2Stream{}, done: make(chan struct{}),
	}
	c.change = sync.NewCond(&c.mu)
	c.henc = hpack.NewEncoder(&c.hbuf)
	c.Framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.Framer.MaxHeaderListSize = 16 << 20
	var hello bytes.Buffer
	hello.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&hello, nil)
	err = errors.Join(
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2Window}, http2.Setting{ID: http2.SettingEnablePush}),
		fr.WriteWindowUpdate(0, 1<<30),
	)
	if err == nil {
		_, err = nc.Write(hello.Bytes())
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	go c.readLoop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.settled && c.err == nil {
		c.change.Wait()
	}
	return c, c.err
}

// Close closes the connection and waits for its reader.
func (c *H2Conn) Close() {
	c.nc.Close()
	<-c.done
}

func (c *H2Conn) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil || c.goaway != nil
}

// WaitGoAway waits until the server sent GOAWAY or the connection ended, and returns the frame's code.
func (c *H2Conn) WaitGoAway() (http2.ErrCode, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.goaway == nil && c.err == nil {
		c.change.Wait()
	}
	if c.goaway == nil {
		return 0, c.err
	}
	return c.goaway.ErrCode, nil
}

// Write runs f with the framer's write side.
func (c *H2Conn) Write(f func(*http2.Framer) error) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return f(c.Framer)
}

// Block encodes a field block as it is given.
func (c *H2Conn) Block(fields Fields) []byte {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return slices.Clone(c.encode(fields))
}

func (c *H2Conn) encode(fields Fields) []byte {
	c.hbuf.Reset()
	for _, f := range fields {
		c.henc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	return c.hbuf.Bytes()
}

// OpenFields sends a HEADERS frame with these fields, whatever they are, and returns its stream.
func (c *H2Conn) OpenFields(fields Fields, end bool) (Stream, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	s := &h2Stream{conn: c, id: c.nextID, window: c.initial}
	c.nextID += 2
	c.streams[s.id] = s
	c.mu.Unlock()
	return s, c.writeBlock(s.id, fields, end)
}

// writeBlock writes HEADERS and CONTINUATION; wmu is held.
func (c *H2Conn) writeBlock(id uint32, fields Fields, end bool) error {
	block := c.encode(fields)
	first, rest := block[:min(len(block), 16384)], block[min(len(block), 16384):]
	err := c.Framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(rest) == 0,
	})
	for err == nil && len(rest) > 0 {
		n := min(len(rest), 16384)
		err = c.Framer.WriteContinuation(id, n == len(rest), rest[:n])
		rest = rest[n:]
	}
	return err
}

func (c *H2Conn) open(req Request, host string) (Stream, error) {
	scheme := "http"
	if c.secure {
		scheme = "https"
	}
	fields, sized := pseudo(req, scheme, host)
	if sized && !req.Streaming && len(req.Body) == 0 && len(req.Trailers) == 0 {
		return c.OpenFields(fields, true)
	}
	s, err := c.OpenFields(fields, false)
	if err != nil || req.Streaming {
		return s, err
	}
	if _, err := s.Write(req.Body); err == nil {
		s.CloseWrite(req.Trailers)
	}
	return s, nil
}

// pseudo returns the field section of a request for HTTP/2 and HTTP/3; whole says that it may end the stream.
func pseudo(req Request, scheme, host string) (fields Fields, whole bool) {
	fields = Fields{{":method", orDefault(req.Method, "GET")}}
	if req.Method != "CONNECT" || req.Protocol != "" {
		fields = append(fields, Field{":scheme", orDefault(req.Scheme, scheme)}, Field{":path", orDefault(req.Target, "/")})
	}
	fields = append(fields, Field{":authority", orDefault(req.Authority, host)})
	if req.Protocol != "" {
		fields = append(fields, Field{":protocol", req.Protocol})
	}
	for _, f := range req.Fields {
		fields = append(fields, Field{strings.ToLower(f.Name), f.Value})
	}
	switch {
	case req.Length > 0:
		fields = append(fields, Field{"content-length", strconv.FormatInt(req.Length, 10)})
	case req.Body != nil && !req.Unsized && !req.Streaming:
		fields = append(fields, Field{"content-length", strconv.Itoa(len(req.Body))})
	}
	return fields, !req.Unsized
}

func (c *H2Conn) readLoop() {
	defer close(c.done)
	defer c.nc.Close()
	for {
		f, err := c.Framer.ReadFrame()
		var se http2.StreamError
		if errors.As(err, &se) {
			c.finish(se.StreamID, fmt.Errorf("malformed response: %w", err))
			continue
		}
		if err == nil {
			err = c.dispatch(f)
		}
		if err != nil {
			c.mu.Lock()
			c.err = err
			for _, s := range c.streams {
				s.end(err)
			}
			c.change.Broadcast()
			c.mu.Unlock()
			return
		}
	}
}

func (c *H2Conn) finish(id uint32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		s.end(err)
	}
	c.change.Broadcast()
}

func (c *H2Conn) dispatch(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		c.settings(f)
		return c.Write(func(fr *http2.Framer) error { return fr.WriteSettingsAck() })
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		data := f.Data
		return c.Write(func(fr *http2.Framer) error { return fr.WritePing(true, data) })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.change.Broadcast()
	s := c.streams[f.Header().StreamID]
	switch f := f.(type) {
	case *http2.GoAwayFrame:
		kept := *f
		c.goaway = &kept
		for id, s := range c.streams {
			if id > f.LastStreamID {
				s.end(fmt.Errorf("stream refused by GOAWAY %v", f.ErrCode))
			}
		}
	case *http2.WindowUpdateFrame:
		if s != nil {
			s.window += int64(f.Increment)
		} else if f.StreamID == 0 {
			c.window += int64(f.Increment)
		}
	case *http2.MetaHeadersFrame:
		if s != nil {
			s.headers(f)
		}
	case *http2.DataFrame:
		if s != nil {
			s.body.Write(f.Data())
			if f.StreamEnded() {
				s.end(io.EOF)
			}
		}
	case *http2.RSTStreamFrame:
		if s != nil {
			s.reset = true
			s.end(fmt.Errorf("%w: %v", ErrReset, f.ErrCode))
		}
	}
	return nil
}

func (c *H2Conn) settings(f *http2.SettingsFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		for _, s := range c.streams {
			s.window += int64(v) - c.initial
		}
		c.initial = int64(v)
	}
	if v, ok := f.Value(http2.SettingEnableConnectProtocol); ok {
		c.extended = v == 1
	}
	c.settled = true
	c.change.Broadcast()
}

// h2Stream is one stream; conn.mu guards all of it.
type h2Stream struct {
	conn     *H2Conn
	id       uint32
	window   int64
	heads    []Head
	final    bool
	body     bytes.Buffer
	trailers Fields
	// err is io.EOF after a clean end.
	err   error
	reset bool
	sent  bool
}

func (s *h2Stream) end(err error) {
	if s.err == nil {
		s.err = err
	}
	delete(s.conn.streams, s.id)
}

func (s *h2Stream) headers(f *http2.MetaHeadersFrame) {
	var fields Fields
	for _, hf := range f.RegularFields() {
		fields = append(fields, Field{hf.Name, hf.Value})
	}
	if s.final {
		s.trailers = fields
	} else {
		status, _ := strconv.Atoi(f.PseudoValue("status"))
		s.final = status >= 200
		s.heads = append(s.heads, Head{status, fields})
	}
	if f.StreamEnded() {
		s.end(io.EOF)
	}
}

// Next waits for a response head.
func (s *h2Stream) Next() (Head, error) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	for len(s.heads) == 0 {
		if s.err != nil {
			return Head{}, s.err
		}
		s.conn.change.Wait()
	}
	h := s.heads[0]
	s.heads = s.heads[1:]
	return h, nil
}

// Read returns body bytes and opens the window again.
func (s *h2Stream) Read(p []byte) (int, error) {
	s.conn.mu.Lock()
	for s.body.Len() == 0 {
		if s.err != nil {
			defer s.conn.mu.Unlock()
			return 0, s.err
		}
		s.conn.change.Wait()
	}
	n, _ := s.body.Read(p)
	over := s.err != nil
	s.conn.mu.Unlock()
	err := s.conn.Write(func(fr *http2.Framer) error {
		if err := fr.WriteWindowUpdate(0, uint32(n)); err != nil || over {
			return err
		}
		return fr.WriteWindowUpdate(s.id, uint32(n))
	})
	if over {
		err = nil
	}
	return n, err
}

// Write sends DATA frames as the windows allow.
func (s *h2Stream) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n, err := s.reserve(len(p))
		if err != nil {
			return total, err
		}
		if err := s.conn.Write(func(fr *http2.Framer) error { return fr.WriteData(s.id, false, p[:n]) }); err != nil {
			return total, err
		}
		p, total = p[n:], total+n
	}
	return total, nil
}

// reserve takes up to n bytes from both windows, waiting until there is room for one.
func (s *h2Stream) reserve(n int) (int, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if s.err != nil && (s.err != io.EOF || s.reset) {
			return 0, s.err
		}
		if c.err != nil {
			return 0, c.err
		}
		if s.err == io.EOF {
			return 0, fmt.Errorf("the gateway ended the stream")
		}
		if room := min(int64(n), s.window, c.window, int64(c.frame)); room > 0 {
			s.window -= room
			c.window -= room
			return int(room), nil
		}
		c.change.Wait()
	}
}

// CloseWrite ends the request.
func (s *h2Stream) CloseWrite(trailers Fields) error {
	c := s.conn
	c.wmu.Lock()
	defer c.wmu.Unlock()
	s.sent = true
	if len(trailers) > 0 {
		low := slices.Clone(trailers)
		for i := range low {
			low[i].Name = strings.ToLower(low[i].Name)
		}
		return c.writeBlock(s.id, low, true)
	}
	return c.Framer.WriteData(s.id, true, nil)
}

// Trailers returns the trailing field section.
func (s *h2Stream) Trailers() Fields {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.trailers
}

// Abort resets the stream with CANCEL unless it is over.
func (s *h2Stream) Abort() {
	s.conn.mu.Lock()
	over := s.err != nil && (s.sent || s.err != io.EOF)
	s.end(errors.New("aborted by the test"))
	s.conn.change.Broadcast()
	s.conn.mu.Unlock()
	if !over {
		s.conn.Write(func(fr *http2.Framer) error { return fr.WriteRSTStream(s.id, http2.ErrCodeCancel) })
	}
}
