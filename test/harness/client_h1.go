package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// h1Client keeps idle connections, last used first.
type h1Client struct {
	opt    ClientOptions
	secure bool

	mu     sync.Mutex // guards what follows
	idle   []*h1Conn
	open   map[*h1Conn]struct{}
	closed bool
}

type h1Conn struct {
	net.Conn
	br *bufio.Reader
}

func newH1Client(opt ClientOptions, secure bool) *h1Client {
	return &h1Client{opt: opt, secure: secure, open: map[*h1Conn]struct{}{}}
}

func (c *h1Client) get() (*h1Conn, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		conn.SetDeadline(time.Now().Add(3 * Patience))
		return conn, nil
	}
	c.mu.Unlock()
	nc, err := dial(c.opt, c.secure)
	if err != nil {
		return nil, err
	}
	conn := &h1Conn{nc, bufio.NewReader(nc)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		nc.Close()
		return nil, net.ErrClosed
	}
	c.open[conn] = struct{}{}
	return conn, nil
}

func (c *h1Client) put(conn *h1Conn, reusable bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reusable && !c.closed {
		c.idle = append(c.idle, conn)
		return
	}
	delete(c.open, conn)
	conn.Close()
}

// Close closes every connection.
func (c *h1Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		conn.Close()
	}
	clear(c.open)
	c.idle = nil
}

// Open writes the head, and the body unless it streams.
func (c *h1Client) Open(req Request) (Stream, error) {
	conn, err := c.get()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	s := &h1Stream{client: c, conn: conn, method: orDefault(req.Method, "GET")}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", s.method, orDefault(req.Target, "/"))
	if !req.Fields.Has("Host") {
		fmt.Fprintf(&b, "Host: %s\r\n", orDefault(req.Authority, c.opt.Host))
	}
	for _, f := range req.Fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	switch {
	case req.Length > 0:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", req.Length)
	case req.Streaming && !req.Fields.Has("Upgrade"), req.Unsized, len(req.Trailers) > 0:
		b.WriteString("Transfer-Encoding: chunked\r\n")
		s.chunked = true
	case req.Body != nil:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(req.Body))
	}
	b.WriteString("\r\n")
	if _, err := conn.Write(b.Bytes()); err != nil {
		c.put(conn, false)
		return nil, err
	}
	if req.Streaming {
		return s, nil
	}
	// The gateway may answer and stop reading before the body's end: what it answered is what counts.
	if len(req.Body) > 0 {
		if _, err := s.Write(req.Body); err != nil {
			s.writeErr = err
		}
	}
	s.CloseWrite(req.Trailers)
	return s, nil
}

// h1Stream is one exchange on a connection.
type h1Stream struct {
	client  *h1Client
	conn    *h1Conn
	method  string
	chunked bool

	wmu      sync.Mutex // guards sent, writeErr
	sent     bool
	writeErr error

	body     io.Reader
	keep     bool
	trailers Fields
	once     sync.Once
}

// Write sends one chunk, or plain bytes.
func (s *h1Stream) Write(p []byte) (int, error) {
	if !s.chunked {
		return s.conn.Write(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	buf := append(strconv.AppendInt(nil, int64(len(p)), 16), "\r\n"...)
	buf = append(append(buf, p...), "\r\n"...)
	if _, err := s.conn.Write(buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite sends the last chunk.
func (s *h1Stream) CloseWrite(trailers Fields) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.sent = true
	if !s.chunked {
		return nil
	}
	var b strings.Builder
	b.WriteString("0\r\n")
	for _, f := range trailers {
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	b.WriteString("\r\n")
	_, err := io.WriteString(s.conn, b.String())
	if err != nil && s.writeErr == nil {
		s.writeErr = err
	}
	return err
}

// Next reads one response head.
func (s *h1Stream) Next() (Head, error) {
	line, err := readLine(s.conn.br)
	if err != nil {
		return Head{}, err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(proto, "HTTP/1.") {
		return Head{}, fmt.Errorf("bad status line %q", line)
	}
	fields, err := readFields(s.conn.br)
	if err != nil {
		return Head{}, err
	}
	h := Head{status, fields}
	if status >= 200 || status == 101 {
		s.frame(proto, h)
	}
	return h, nil
}

// frame chooses how the body ends (RFC 9112 6.3).
func (s *h1Stream) frame(proto string, h Head) {
	s.keep = proto == "HTTP/1.1" && !strings.EqualFold(h.Fields.Get("Connection"), "close")
	length := h.Fields.Get("Content-Length")
	switch {
	case h.Status == 101, h.Status < 300 && s.method == "CONNECT":
		s.body, s.keep = s.conn.br, false
	case s.method == "HEAD", h.Status == 204, h.Status == 304:
		s.body = strings.NewReader("")
	case h.Fields.Has("Transfer-Encoding"):
		s.body = &chunkReader{br: s.conn.br, trailers: &s.trailers}
	case length != "":
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil {
			s.body = errReader{fmt.Errorf("bad content-length %q", length)}
			return
		}
		s.body = &sizedReader{s.conn.br, n}
	default:
		s.body, s.keep = s.conn.br, false
	}
}

// Read returns body bytes; at the end the connection goes back.
func (s *h1Stream) Read(p []byte) (int, error) {
	if s.body == nil {
		return 0, fmt.Errorf("read before the final head")
	}
	n, err := s.body.Read(p)
	if err == io.EOF {
		s.wmu.Lock()
		reusable := s.keep && s.sent && s.writeErr == nil
		s.wmu.Unlock()
		s.once.Do(func() { s.client.put(s.conn, reusable) })
	}
	return n, err
}

// Trailers returns the chunked body's trailers.
func (s *h1Stream) Trailers() Fields { return s.trailers }

// Abort closes the connection unless the exchange is over.
func (s *h1Stream) Abort() { s.once.Do(func() { s.client.put(s.conn, false) }) }

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

type sizedReader struct {
	br   *bufio.Reader
	left int64
}

func (r *sizedReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.br.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

type chunkReader struct {
	br       *bufio.Reader
	left     int64
	done     bool
	trailers *Fields
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if r.done {
		return 0, io.EOF
	}
	if r.left == 0 {
		line, err := readLine(r.br)
		if err != nil {
			return 0, err
		}
		if r.left, err = strconv.ParseInt(line, 16, 64); err != nil {
			return 0, fmt.Errorf("bad chunk size %q", line)
		}
		if r.left == 0 {
			if *r.trailers, err = readFields(r.br); err != nil {
				return 0, err
			}
			r.done = true
			return 0, io.EOF
		}
	}
	n, err := r.br.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err == nil && r.left == 0 {
		var line string
		if line, err = readLine(r.br); err == nil && line != "" {
			err = fmt.Errorf("bytes %q after a chunk", line)
		}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// readLine reads one CRLF line and insists on the CR.
func readLine(br *bufio.Reader) (string, error) {
	line, err := br.ReadString('\n')
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", err
	}
	if !strings.HasSuffix(line, "\r\n") {
		return "", fmt.Errorf("bare LF after %q", line)
	}
	return strings.TrimSuffix(line, "\r\n"), nil
}

// readFields reads field lines as they stand until the empty line.
func readFields(br *bufio.Reader) (Fields, error) {
	var fields Fields
	for {
		line, err := readLine(br)
		if err != nil || line == "" {
			return fields, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("field line %q has no colon", line)
		}
		fields = append(fields, Field{name, strings.Trim(value, " \t")})
	}
}

// Raw writes bytes to a fresh TCP connection and reads until the gateway closes it, so long as quiet lasts after an answer.
func Raw(address, data string, quiet time.Duration) (string, error) {
	conn, err := net.DialTimeout("tcp", address, Patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	go io.WriteString(conn, data) // the gateway may answer before it has read all
	var got bytes.Buffer
	buf := make([]byte, 16<<10)
	for {
		conn.SetReadDeadline(time.Now().Add(quiet))
		n, err := conn.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			return got.String(), err
		}
	}
}
