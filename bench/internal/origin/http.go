package origin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

const (
	// readSize holds the longest head, and is what an upload is read by.
	readSize = 256 << 10
	// blockSize is what large answers are written by.
	blockSize = 1 << 20
	// mostBody bounds what a path can ask for.
	mostBody = 1 << 40
)

// request is what the origin looks at in a head.
type request struct {
	path []byte
	// length is the body's, -1 when it is chunked.
	length  int64
	closes  bool
	wsKey   []byte
	version []byte
}

// session is one HTTP/1.1 connection.
type session struct {
	conn net.Conn
	// buf[from:to] is read and not yet used.
	buf      []byte
	from, to int
	// answer answers the path lastPath; a client that asks for the same again gets the same bytes.
	lastPath, answer []byte
	// rest is how much body follows the answer, from block.
	rest  int64
	block []byte
}

// serveHTTP serves one connection:
//
//	/b/N       N bytes
//	/version   the request's field X-Version
//	Upgrade    a WebSocket echo, whatever the path
//	any other  the number of body bytes that the request had, as text
func serveHTTP(conn net.Conn) error {
	s := &session{conn: conn, buf: make([]byte, 16<<10)}
	for {
		r, err := s.readHead()
		if err != nil {
			return err
		}
		if r.wsKey != nil {
			return s.echoFrames(r.wsKey)
		}
		size, err := s.readBody(r.length)
		if err != nil {
			return err
		}
		if err := s.reply(r, size); err != nil || r.closes {
			return err
		}
	}
}

// fill reads more behind what is there, making room by moving or growing.
func (s *session) fill() error {
	if s.from == s.to {
		s.from, s.to = 0, 0
	}
	if s.to == len(s.buf) {
		if s.from > 0 {
			s.to = copy(s.buf, s.buf[s.from:s.to])
			s.from = 0
		} else if len(s.buf) < readSize {
			s.buf = append(s.buf, make([]byte, len(s.buf))...)
		} else {
			return errors.New("head over the buffer")
		}
	}
	n, err := s.conn.Read(s.buf[s.to:])
	s.to += n
	if n > 0 {
		return nil
	}
	return err
}

func (s *session) readHead() (request, error) {
	for {
		if end := bytes.Index(s.buf[s.from:s.to], []byte("\r\n\r\n")); end >= 0 {
			head := s.buf[s.from : s.from+end+2]
			s.from += end + 4
			return parseHead(head)
		}
		if err := s.fill(); err != nil {
			return request{}, err
		}
	}
}

// parseHead looks at the request line and at four fields by their length and name. It trusts its client, a proxy under test.
func parseHead(head []byte) (request, error) {
	var r request
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	_, target, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return r, fmt.Errorf("bad request line %q", line)
	}
	r.path, _, _ = bytes.Cut(target, []byte(" "))
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			return r, fmt.Errorf("bad field line %q", line)
		}
		var err error
		name, value := line[:colon], line[colon+1:]
		switch colon {
		case len("X-Version"):
			if bytes.EqualFold(name, []byte("X-Version")) {
				r.version = bytes.TrimSpace(value)
			}
		case len("Connection"):
			if bytes.EqualFold(name, []byte("Connection")) {
				r.closes = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
			}
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				r.length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
			}
		case len("Transfer-Encoding"): // and Sec-WebSocket-Key
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				r.length = -1
			} else if bytes.EqualFold(name, []byte("Sec-WebSocket-Key")) {
				r.wsKey = bytes.TrimSpace(value)
			}
		}
		if err != nil {
			return r, fmt.Errorf("bad content length: %w", err)
		}
	}
	return r, nil
}

// readBody drops a body and returns its size.
func (s *session) readBody(length int64) (int64, error) {
	if length == 0 {
		return 0, nil
	}
	if length > 0 {
		return length, s.skip(length)
	}
	return s.readChunks()
}

func (s *session) skip(n int64) error {
	if n > int64(len(s.buf)) && len(s.buf) < readSize {
		s.buf = append(s.buf, make([]byte, readSize-len(s.buf))...)
	}
	for {
		have := min(n, int64(s.to-s.from))
		s.from += int(have)
		if n -= have; n == 0 {
			return nil
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// readChunks drops a chunked body (RFC 9112 7.1) and returns its size without the framing.
func (s *session) readChunks() (int64, error) {
	var size int64
	for {
		line, err := s.readLine()
		if err != nil {
			return 0, err
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseInt(string(bytes.TrimSpace(digits)), 16, 63)
		if err != nil {
			return 0, fmt.Errorf("bad chunk: %w", err)
		}
		if n == 0 {
			for len(line) > 0 { // trailers, up to the empty line
				if line, err = s.readLine(); err != nil {
					return 0, err
				}
			}
			return size, nil
		}
		size += n
		if err := s.skip(n + 2); err != nil {
			return 0, err
		}
	}
}

func (s *session) readLine() ([]byte, error) {
	for {
		if end := bytes.Index(s.buf[s.from:s.to], []byte("\r\n")); end >= 0 {
			line := s.buf[s.from : s.from+end]
			s.from += end + 2
			return line, nil
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

func (s *session) reply(r request, uploaded int64) error {
	switch {
	case uploaded > 0:
		s.build(r.path[:0], strconv.AppendInt(nil, uploaded, 10), 0)
	case r.version != nil && string(r.path) == "/version":
		s.build(r.path[:0], r.version, 0)
	case !bytes.Equal(r.path, s.lastPath) || len(s.answer) == 0:
		size := int64(0)
		if digits, ok := bytes.CutPrefix(r.path, []byte("/b/")); ok {
			var err error
			if size, err = strconv.ParseInt(string(digits), 10, 64); err != nil || size < 0 || size > mostBody {
				return errors.Join(fmt.Errorf("path %q asks for no size", r.path), err)
			}
		}
		s.build(r.path, nil, size)
	}
	if s.rest == 0 {
		_, err := s.conn.Write(s.answer)
		return err
	}
	buffers := net.Buffers{s.answer}
	for rest := s.rest; rest > 0; {
		part := min(rest, blockSize)
		buffers = append(buffers, s.block[:part])
		rest -= part
		if _, err := buffers.WriteTo(s.conn); err != nil {
			return err
		}
		buffers = nil
	}
	return nil
}

// build makes the answer to path: body, or size bytes of filling.
func (s *session) build(path, body []byte, size int64) {
	s.lastPath = append(s.lastPath[:0], path...)
	s.answer = fmt.Appendf(s.answer[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
		max(size, int64(len(body))))
	s.answer = append(s.answer, body...)
	s.rest = 0
	if size <= readSize {
		s.answer = append(s.answer, bytes.Repeat([]byte("x"), int(size))...)
		return
	}
	s.rest = size
	if s.block == nil {
		s.block = bytes.Repeat([]byte("x"), blockSize)
	}
}

// Read hands out what was read behind the head first. It lets frames be read through io.ReadFull.
func (s *session) Read(p []byte) (int, error) {
	if s.from == s.to {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.buf[s.from:s.to])
	s.from += n
	return n, nil
}

var _ io.Reader = (*session)(nil)
