package harness

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Recorder is an HTTP/1.1 origin that keeps the exact bytes that reached it on each connection: what a proxy forwarded is judged
// by them, not by the status it answered.
type Recorder struct {
	Addr netip.AddrPort

	ln     net.Listener
	script func(*RecordedConn)
	served sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns []*RecordedConn
}

// RecordedConn is one connection of a Recorder, in the hands of its script.
type RecordedConn struct {
	net.Conn
	br *bufio.Reader

	mu  sync.Mutex // guards got
	got bytes.Buffer
}

// Read keeps what it reads.
func (c *RecordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.got.Write(p[:n])
	c.mu.Unlock()
	return n, err
}

// Bytes returns everything that came so far.
func (c *RecordedConn) Bytes() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got.String()
}

// ReadHead reads up to and including the empty line.
func (c *RecordedConn) ReadHead() (string, error) {
	var head strings.Builder
	for {
		line, err := c.br.ReadString('\n')
		head.WriteString(line)
		if err != nil {
			return head.String(), err
		}
		if line == "\r\n" || line == "\n" {
			return head.String(), nil
		}
	}
}

// ReadBody reads the body that the head announces and returns it decoded.
func (c *RecordedConn) ReadBody(head string) (string, error) {
	br := bufio.NewReader(strings.NewReader(head))
	if _, err := br.ReadString('\n'); err != nil {
		return "", err
	}
	fields, err := readFields(br)
	if err != nil {
		return "", err
	}
	var trailers Fields
	var body io.Reader = strings.NewReader("")
	switch length := fields.Get("Content-Length"); {
	case fields.Has("Transfer-Encoding"):
		body = &chunkReader{br: c.br, trailers: &trailers}
	case length != "":
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil {
			return "", err
		}
		body = &sizedReader{c.br, n}
	}
	all, err := io.ReadAll(body)
	return string(all), err
}

// Answer writes raw bytes.
func (c *RecordedConn) Answer(raw string) { _, _ = io.WriteString(c.Conn, raw) }

// AnswerOK is a script: it answers every request with 200 and the body "ok".
func AnswerOK(c *RecordedConn) {
	for {
		head, err := c.ReadHead()
		if err != nil {
			return
		}
		if _, err := c.ReadBody(head); err != nil {
			return
		}
		c.Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// NewRecorder starts a recording origin. The script runs once per connection, which is closed when it returns.
func NewRecorder(t testing.TB, script func(*RecordedConn)) *Recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Recorder{Addr: netip.MustParseAddrPort(ln.Addr().String()), ln: ln, script: script}
	r.served.Go(r.accept)
	t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.served.Wait()
	})
	return r
}

func (r *Recorder) accept() {
	for {
		nc, err := r.ln.Accept()
		if err != nil {
			return
		}
		c := &RecordedConn{Conn: nc}
		c.br = bufio.NewReader(c)
		r.mu.Lock()
		r.conns = append(r.conns, c)
		r.mu.Unlock()
		r.served.Go(func() {
			defer c.Close()
			r.script(c)
		})
	}
}

// Conns returns the connections so far.
func (r *Recorder) Conns() []*RecordedConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*RecordedConn(nil), r.conns...)
}

// Bytes returns what came so far on all connections, in the order they were opened.
func (r *Recorder) Bytes() string {
	var all strings.Builder
	for _, c := range r.Conns() {
		all.WriteString(c.Bytes())
	}
	return all.String()
}
