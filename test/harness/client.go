package harness

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// Request is a request as a test wants it on the wire. Nothing is added but the protocol's own framing and, on HTTP/1.1, Host.
type Request struct {
	// Method is GET when empty, Target "/", Authority the client's host.
	Method, Target, Authority string
	// Scheme is the connection's when empty; HTTP/1.1 does not send it.
	Scheme string
	// Protocol is the :protocol of an extended CONNECT; HTTP/2 and HTTP/3 only.
	Protocol string
	Fields   Fields
	// Body is sent whole with a content-length, or without one when Unsized.
	Body    []byte
	Unsized bool
	// Trailers end a Body; they make it Unsized on HTTP/1.1.
	Trailers Fields
	// Streaming leaves the request open: the test writes the body to the Stream. Length > 0 announces a content-length.
	Streaming bool
	Length    int64
}

// Head is an interim or final response head.
type Head struct {
	Status int
	Fields Fields
}

// Stream is one request and its response, open in both directions. Write and Read may run at the same time.
type Stream interface {
	// Write sends body bytes at once.
	io.Writer
	// Read returns body bytes of the response: io.EOF only at a clean end.
	io.Reader
	// CloseWrite ends the request body.
	CloseWrite(trailers Fields) error
	// Next waits for the next response head, interim or final.
	Next() (Head, error)
	// Trailers returns what followed the body; valid after Read returned io.EOF.
	Trailers() Fields
	// Abort gives the exchange up: a stream reset, on HTTP/1.1 a closed connection.
	Abort()
}

// Client sends requests to one address over one protocol.
type Client interface {
	// Open sends the request's head and, unless it streams, its body.
	Open(Request) (Stream, error)
	// Close ends the client's connections.
	Close()
}

// Options say how a client connects.
type ClientOptions struct {
	// Address is the gateway's "127.0.0.1:port".
	Address string
	// Host is the SNI and the default authority.
	Host string
	// TLS overrides the client's TLS settings; nil trusts the harness's CA and sends Host as SNI.
	TLS *tls.Config
}

// ErrReset is the error of a stream that the gateway reset.
var ErrReset = errors.New("the gateway reset the stream")

// NewClient returns a client of the protocol, closed when the test ends.
func NewClient(t testing.TB, d Down, opt ClientOptions) Client {
	t.Helper()
	if opt.TLS == nil {
		opt.TLS = ClientTLS(opt.Host)
	}
	opt.TLS = opt.TLS.Clone()
	var c Client
	switch d {
	case H1, H1TLS:
		opt.TLS.NextProtos = []string{"http/1.1"}
		c = newH1Client(opt, d == H1TLS)
	case H2, H2C:
		opt.TLS.NextProtos = []string{"h2"}
		c = &h2Client{opt: opt, secure: d == H2}
	case H3:
		opt.TLS.NextProtos = []string{"h3"}
		c = &h3Client{opt: opt}
	default:
		t.Fatalf("no client for %q", d)
	}
	t.Cleanup(c.Close)
	return c
}

// dial connects over TCP and, when secure, TLS; the connection fails by itself once Patience is over.
func dial(opt ClientOptions, secure bool) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", opt.Address, Patience)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(3 * Patience))
	if !secure {
		return conn, nil
	}
	tc := tls.Client(conn, opt.TLS)
	if err := tc.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	return tc, nil
}

// Result is a whole response.
type Result struct {
	Status   int
	Fields   Fields
	Body     []byte
	Trailers Fields
	Interim  []Head
	// Err is why the body did not end cleanly, nil when it did.
	Err error
}

// Do sends a request and reads the whole response; err is set when no final head came.
func Do(c Client, req Request) (*Result, error) {
	s, err := c.Open(req)
	if err != nil {
		return nil, err
	}
	return Finish(s)
}

// Finish reads the rest of a response.
func Finish(s Stream) (*Result, error) {
	r, err := Final(s)
	if err != nil {
		s.Abort()
		return nil, err
	}
	r.Body, r.Err = io.ReadAll(s)
	if r.Err != nil {
		s.Abort()
	} else {
		r.Trailers = s.Trailers()
	}
	return r, nil
}

// Final waits for the final head, keeping the interim ones.
func Final(s Stream) (*Result, error) {
	r := &Result{}
	for {
		h, err := s.Next()
		if err != nil {
			return nil, err
		}
		if h.Status >= 200 || h.Status == 101 {
			r.Status, r.Fields = h.Status, h.Fields
			return r, nil
		}
		r.Interim = append(r.Interim, h)
	}
}

// MustDo is Do that fails the test unless a whole response came.
func MustDo(t testing.TB, c Client, req Request) *Result {
	t.Helper()
	r, err := Do(c, req)
	if err != nil {
		t.Fatalf("%s %s: no response: %v", req.Method, req.Target, err)
	}
	if r.Err != nil {
		t.Fatalf("%s %s: status %d, the body broke off after %d bytes: %v", req.Method, req.Target, r.Status, len(r.Body), r.Err)
	}
	return r
}

// MustOpen is Client.Open that fails the test on an error.
func MustOpen(t testing.TB, c Client, req Request) Stream {
	t.Helper()
	s, err := c.Open(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.Target, err)
	}
	t.Cleanup(s.Abort)
	return s
}

// MustFinal is Final that fails the test unless the final head has the status.
func MustFinal(t testing.TB, s Stream, status int) *Result {
	t.Helper()
	r, err := Final(s)
	if err != nil {
		t.Fatalf("no response: %v", err)
	}
	if r.Status != status {
		body, _ := io.ReadAll(io.LimitReader(s, 512))
		t.Fatalf("got status %d (%q), want %d", r.Status, body, status)
	}
	return r
}

// MustRead reads exactly n bytes of the response body.
func MustRead(t testing.TB, s Stream, n int) string {
	t.Helper()
	buf := make([]byte, n)
	if got, err := io.ReadFull(s, buf); err != nil {
		t.Fatalf("got %q (%d of %d bytes): %v", buf[:got], got, n, err)
	}
	return string(buf)
}

// MustWrite writes body bytes.
func MustWrite(t testing.TB, s Stream, data string) {
	t.Helper()
	if _, err := io.WriteString(s, data); err != nil {
		t.Fatalf("cannot write %q: %v", data, err)
	}
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
