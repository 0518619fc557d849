package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// HTTP/3 frame and stream types (RFC 9114 7.2, 6.2) and error codes (8.1).
const (
	H3Data     = 0x0
	H3Headers  = 0x1
	h3Settings = 0x4
	h3GoAway   = 0x7

	h3ControlStream = 0x0

	h3RequestCancelled = 0x10c

	h3EnableConnect = 0x8
)

// h3Client keeps one connection and dials another when that one goes away.
type h3Client struct {
	opt ClientOptions

	mu    sync.Mutex // guards what follows
	conn  *H3Conn
	conns []*H3Conn
}

// Open sends the request on the current connection.
func (c *h3Client) Open(req Request) (Stream, error) {
	c.mu.Lock()
	if c.conn == nil || c.conn.gone() {
		conn, err := DialH3(c.opt)
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
func (c *h3Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
}

// H3Conn is one HTTP/3 connection, frame by frame.
type H3Conn struct {
	QUIC    *quic.Conn
	readers sync.WaitGroup
	// Settled is closed when the server's SETTINGS came; GoAway when its GOAWAY did.
	Settled, GoAway chan struct{}
	extended        bool
}

// DialH3 opens a connection, sends SETTINGS and reads the server's streams.
func DialH3(opt ClientOptions) (*H3Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	tlsConf := opt.TLS.Clone()
	tlsConf.NextProtos = []string{"h3"}
	conn, err := quic.DialAddr(ctx, opt.Address, tlsConf, &quic.Config{
		InitialStreamReceiveWindow: h2Window, MaxStreamReceiveWindow: h2Window,
		InitialConnectionReceiveWindow: 8 * h2Window, MaxConnectionReceiveWindow: 32 * h2Window,
		MaxIdleTimeout: 3 * Patience,
	})
	if err != nil {
		return nil, err
	}
	c := &H3Conn{QUIC: conn, Settled: make(chan struct{}), GoAway: make(chan struct{})}
	control, err := conn.OpenUniStream()
	if err == nil {
		_, err = control.Write([]byte{h3ControlStream, h3Settings, 0})
	}
	if err != nil {
		conn.CloseWithError(0, "")
		return nil, err
	}
	c.readers.Go(c.acceptStreams)
	return c, nil
}

// Close ends the connection and waits for its readers.
func (c *H3Conn) Close() {
	c.QUIC.CloseWithError(0x100, "")
	c.readers.Wait()
}

func (c *H3Conn) gone() bool {
	select {
	case <-c.GoAway:
		return true
	case <-c.QUIC.Context().Done():
		return true
	default:
		return false
	}
}

func (c *H3Conn) acceptStreams() {
	for {
		str, err := c.QUIC.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		c.readers.Go(func() { c.readUni(str) })
	}
}

func (c *H3Conn) readUni(str *quic.ReceiveStream) {
	r := quicvarint.NewReader(str)
	if kind, err := quicvarint.Read(r); err != nil || kind != h3ControlStream {
		io.Copy(io.Discard, str) // QPACK: nothing is dynamic here
		return
	}
	for {
		kind, payload, err := readFrame(r)
		if err != nil {
			return
		}
		switch kind {
		case h3Settings:
			c.settings(payload)
			close(c.Settled)
		case h3GoAway:
			if !c.gone() {
				close(c.GoAway)
			}
		}
	}
}

func (c *H3Conn) settings(payload []byte) {
	for len(payload) > 0 {
		id, n, err := quicvarint.Parse(payload)
		if err != nil {
			return
		}
		value, m, err := quicvarint.Parse(payload[n:])
		if err != nil {
			return
		}
		payload = payload[n+m:]
		if id == h3EnableConnect && value == 1 {
			c.extended = true
		}
	}
}

func readFrame(r quicvarint.Reader) (kind uint64, payload []byte, err error) {
	if kind, err = quicvarint.Read(r); err != nil {
		return 0, nil, err
	}
	size, err := quicvarint.Read(r)
	if err != nil {
		return 0, nil, unexpected(err)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r, payload)
	return kind, payload, unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *H3Conn) open(req Request, host string) (Stream, error) {
	fields, whole := pseudo(req, "https", host)
	s, err := c.OpenFields(fields)
	if err != nil || req.Streaming {
		return s, err
	}
	if !whole || len(req.Body) > 0 {
		if _, err := s.Write(req.Body); err != nil {
			return s, nil // the gateway may have answered already
		}
	}
	s.CloseWrite(req.Trailers)
	return s, nil
}

// OpenFields sends a HEADERS frame with these fields, whatever they are.
func (c *H3Conn) OpenFields(fields Fields) (H3Stream, error) {
	if req := fields.Get(":protocol"); req != "" {
		select {
		case <-c.Settled: // RFC 9220 3: only after the server's SETTINGS allowed it
		case <-c.QUIC.Context().Done():
			return nil, context.Cause(c.QUIC.Context())
		}
	}
	str, err := c.QUIC.OpenStream()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.QUIC.Context(), Patience)
	s := &h3Stream{conn: c, str: str, cancel: cancel, r: quicvarint.NewReader(str)}
	context.AfterFunc(ctx, func() {
		if ctx.Err() == context.DeadlineExceeded {
			str.CancelRead(h3RequestCancelled)
			str.CancelWrite(h3RequestCancelled)
		}
	})
	return s, s.frame(H3Headers, FieldBlock(fields))
}

// FieldBlock encodes a field section as it is given, without Huffman's help or a dynamic table.
func FieldBlock(fields Fields) []byte {
	var block bytes.Buffer
	enc := qpack.NewEncoder(&block)
	for _, f := range fields {
		enc.WriteField(qpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	return block.Bytes()
}

type h3Stream struct {
	conn     *H3Conn
	str      *quic.Stream
	cancel   context.CancelFunc
	r        quicvarint.Reader
	final    bool
	left     uint64
	trailers Fields
}

// H3Stream is a request stream, frame by frame.
type H3Stream interface {
	Stream
	// Frame sends one frame, whatever it is.
	Frame(kind uint64, payload []byte) error
	// QUIC is the stream below.
	QUIC() *quic.Stream
}

// Frame implements H3Stream.
func (s *h3Stream) Frame(kind uint64, payload []byte) error { return s.frame(kind, payload) }

// QUIC implements H3Stream.
func (s *h3Stream) QUIC() *quic.Stream { return s.str }

func (s *h3Stream) frame(kind uint64, payload []byte) error {
	buf := quicvarint.Append(nil, kind)
	buf = quicvarint.Append(buf, uint64(len(payload)))
	_, err := s.str.Write(append(buf, payload...))
	return err
}

// Write sends one DATA frame.
func (s *h3Stream) Write(p []byte) (int, error) {
	if err := s.frame(H3Data, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite sends trailers and FIN.
func (s *h3Stream) CloseWrite(trailers Fields) error {
	if len(trailers) > 0 {
		low := make(Fields, len(trailers))
		for i, f := range trailers {
			low[i] = Field{strings.ToLower(f.Name), f.Value}
		}
		if err := s.frame(H3Headers, FieldBlock(low)); err != nil {
			return err
		}
	}
	return s.str.Close()
}

func decodeBlock(block []byte) (fields Fields, status int, err error) {
	next := qpack.NewDecoder().Decode(block)
	for {
		f, err := next()
		if err == io.EOF {
			return fields, status, nil
		}
		if err != nil {
			return nil, 0, err
		}
		if f.Name == ":status" {
			status, _ = strconv.Atoi(f.Value)
			continue
		}
		fields = append(fields, Field{f.Name, f.Value})
	}
}

// Next reads up to the next HEADERS frame.
func (s *h3Stream) Next() (Head, error) {
	for {
		kind, payload, err := readFrame(s.r)
		if err != nil {
			return Head{}, s.wrap(unexpected(err))
		}
		switch kind {
		case H3Headers:
			fields, status, err := decodeBlock(payload)
			s.final = status >= 200
			return Head{status, fields}, err
		case H3Data:
			return Head{}, errors.New("DATA before HEADERS")
		}
	}
}

// Read returns bytes of DATA frames.
func (s *h3Stream) Read(p []byte) (int, error) {
	if !s.final {
		return 0, errors.New("read before the final head")
	}
	for s.left == 0 {
		kind, err := quicvarint.Read(s.r)
		if err != nil {
			if err == io.EOF {
				s.cancel()
			}
			return 0, s.wrap(err)
		}
		if kind == H3Data {
			if s.left, err = quicvarint.Read(s.r); err != nil {
				return 0, s.wrap(unexpected(err))
			}
			continue
		}
		size, err := quicvarint.Read(s.r)
		if err != nil {
			return 0, s.wrap(unexpected(err))
		}
		payload := make([]byte, size)
		if _, err := io.ReadFull(s.r, payload); err != nil {
			return 0, s.wrap(unexpected(err))
		}
		if kind == H3Headers {
			if s.trailers, _, err = decodeBlock(payload); err != nil {
				return 0, err
			}
		}
	}
	n, err := s.r.Read(p[:min(uint64(len(p)), s.left)])
	s.left -= uint64(n)
	if n > 0 {
		return n, nil
	}
	return 0, s.wrap(unexpected(err))
}

func (s *h3Stream) wrap(err error) error {
	if se, ok := errors.AsType[*quic.StreamError](err); ok && se.Remote {
		return fmt.Errorf("%w: %v", ErrReset, err)
	}
	return err
}

// Trailers returns the trailing field section.
func (s *h3Stream) Trailers() Fields { return s.trailers }

// Abort resets both directions.
func (s *h3Stream) Abort() {
	s.cancel()
	s.str.CancelRead(h3RequestCancelled)
	s.str.CancelWrite(h3RequestCancelled)
}
