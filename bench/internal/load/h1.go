package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Request is one of the requests that a load sends in turn.
type Request struct {
	// Path and Header: "/b/130", "X-Tenant: t1" or "".
	Path, Header string
	// Upload is the size of the body to send; 0 makes it a GET.
	Upload int64
}

// wire is a request as HTTP/1.1 bytes, its body aside.
func (r Request) wire(host string) []byte {
	method := "GET"
	if r.Upload > 0 {
		method = "POST"
	}
	b := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, r.Path, host)
	if r.Header != "" {
		b = append(b, r.Header+"\r\n"...)
	}
	if r.Upload > 0 {
		b = fmt.Appendf(b, "Content-Length: %d\r\n", r.Upload)
	}
	return append(b, "\r\n"...)
}

// blockSize is what bodies are written by.
const blockSize = 256 << 10

// errClosed says that the connection ended before the first byte of an answer.
var errClosed = errors.New("connection closed before an answer")

// h1Conn is the client's side of an HTTP/1.1 connection. It reads answers and keeps nothing of them.
type h1Conn struct {
	conn net.Conn
	// buf[from:to] is read and not yet used.
	buf      []byte
	from, to int
}

func newH1Conn(conn net.Conn) *h1Conn { return &h1Conn{conn: conn, buf: make([]byte, 16<<10)} }

// send writes a request. carried is told of each part of the body that was written.
func (c *h1Conn) send(head []byte, upload int64, block []byte, carried func(int)) error {
	if upload == 0 {
		_, err := c.conn.Write(head)
		return err
	}
	buffers := net.Buffers{head}
	for upload > 0 {
		part := block[:min(upload, int64(len(block)))]
		buffers = append(buffers, part)
		if _, err := buffers.WriteTo(c.conn); err != nil {
			return err
		}
		buffers = nil
		upload -= int64(len(part))
		carried(len(part))
	}
	return nil
}

// receive reads one answer to its end and fails unless its status is 200.
func (c *h1Conn) receive(carried func(int)) error {
	status, length, err := c.readHead()
	if err != nil {
		return err
	}
	if length >= 0 {
		err = c.skip(length, carried)
	} else {
		err = c.skipChunks(carried)
	}
	if err == nil && status != 200 {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

func (c *h1Conn) fill() error {
	if c.from == c.to {
		c.from, c.to = 0, 0
	}
	if c.to == len(c.buf) {
		if c.from == 0 {
			return errors.New("response head over the buffer")
		}
		c.to = copy(c.buf, c.buf[c.from:c.to])
		c.from = 0
	}
	n, err := c.conn.Read(c.buf[c.to:])
	c.to += n
	if n > 0 {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readHead returns the status and the body's length, -1 when it is chunked.
func (c *h1Conn) readHead() (status int, length int64, err error) {
	for {
		if end := bytes.Index(c.buf[c.from:c.to], []byte("\r\n\r\n")); end >= 0 {
			head := c.buf[c.from : c.from+end+2]
			c.from += end + 4
			return parseResponse(head)
		}
		if err := c.fill(); err != nil {
			if c.from == c.to {
				err = fmt.Errorf("%w: %w", errClosed, err)
			}
			return 0, 0, err
		}
	}
}

// parseResponse looks at the status and at the two fields that frame a body.
func parseResponse(head []byte) (status int, length int64, err error) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, 0, fmt.Errorf("bad status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, fmt.Errorf("bad status line %q", line)
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		colon := bytes.IndexByte(line, ':')
		switch {
		case colon == len("Content-Length") && bytes.EqualFold(line[:colon], []byte("Content-Length")):
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(line[colon+1:])), 10, 64); err != nil {
				return 0, 0, fmt.Errorf("bad content length: %w", err)
			}
		case colon == len("Transfer-Encoding") && bytes.EqualFold(line[:colon], []byte("Transfer-Encoding")):
			length = -1
		}
	}
	return status, length, nil
}

func (c *h1Conn) skip(n int64, carried func(int)) error {
	if n > int64(len(c.buf)) && len(c.buf) < blockSize {
		c.buf = append(c.buf, make([]byte, blockSize-len(c.buf))...)
	}
	for {
		have := int(min(n, int64(c.to-c.from)))
		c.from += have
		if carried != nil {
			carried(have)
		}
		if n -= int64(have); n == 0 {
			return nil
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

func (c *h1Conn) skipChunks(carried func(int)) error {
	for {
		line, err := c.readLine()
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(line), 16, 63)
		if err != nil {
			return fmt.Errorf("bad chunk: %w", err)
		}
		if n == 0 {
			for len(line) > 0 {
				if line, err = c.readLine(); err != nil {
					return err
				}
			}
			return nil
		}
		if err := c.skip(n, carried); err != nil {
			return err
		}
		if err := c.skip(2, nil); err != nil {
			return err
		}
	}
}

func (c *h1Conn) readLine() ([]byte, error) {
	for {
		if end := bytes.Index(c.buf[c.from:c.to], []byte("\r\n")); end >= 0 {
			line := c.buf[c.from : c.from+end]
			c.from += end + 2
			return line, nil
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// Read hands out what is there before it reads on.
func (c *h1Conn) Read(p []byte) (int, error) {
	if c.from == c.to {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.from:c.to])
	c.from += n
	return n, nil
}

// h1Worker keeps one connection busy with the requests in turn, beginning with the i-th.
func h1Worker(t *tally, i int, address, alpn string, requests []Request) {
	heads := make([][]byte, len(requests))
	for k, r := range requests {
		heads[k] = r.wire(address)
	}
	var c *h1Conn
	block := make([]byte, blockSize)
	for !t.run.over() && t.failures < mostFailures {
		if c == nil {
			conn, err := dial(address, alpn)
			if err != nil {
				t.ended(0, err)
				continue
			}
			t.run.keep(conn)
			c = newH1Conn(conn)
		}
		i = (i + 1) % len(requests)
		began := time.Now()
		err := c.send(heads[i], requests[i].Upload, block, t.carried)
		if err == nil {
			err = c.receive(t.carried)
		}
		t.ended(time.Since(began), err)
		if err != nil {
			t.run.drop(c.conn)
			c = nil
		}
	}
	if c != nil {
		t.run.drop(c.conn)
	}
}
