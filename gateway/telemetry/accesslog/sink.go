package accesslog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// sink is where lines go. Only the writer goroutine writes to it; reopen may be called from any.
type sink struct {
	name string // for messages
	path string // "" when lines do not go to a file

	out  io.Writer // the writer goroutine's
	file *os.File  // out, when the sink opened it
	torn bool      // a failed write left half a line

	mu     sync.Mutex
	next   *os.File // guarded by mu: the file to change to
	closed bool     // guarded by mu
}

func openSink(o Options) (*sink, error) {
	switch {
	case o.Writer != nil:
		return &sink{name: "the writer", out: o.Writer}, nil
	case o.Path == "-":
		return &sink{name: "stdout", out: os.Stdout}, nil
	}
	file, err := openFile(o.Path)
	if err != nil {
		return nil, err
	}
	return &sink{name: o.Path, path: o.Path, out: file, file: file}, nil
}

func openFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("access log: cannot open the file; name one in a directory that exists and can be written: %w", err)
	}
	return file, nil
}

func (s *sink) reopen() error {
	if s.path == "" {
		return nil
	}
	file, err := openFile(s.path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(errors.New("access log: it is closed and cannot be reopened"), file.Close())
	}
	if s.next != nil {
		_ = s.next.Close() // nothing was written to it
	}
	s.next = file
	return nil
}

// change goes over to the file that reopen opened, if it did.
func (s *sink) change() {
	s.mu.Lock()
	next := s.next
	s.next = nil
	s.mu.Unlock()
	if next == nil {
		return
	}
	_ = s.file.Close() // each write was answered for already
	s.file, s.out, s.torn = next, next, false
}

// write writes whole lines. After a write that stopped within a line the next one begins on a new line.
func (s *sink) write(lines []byte) error {
	if s.torn {
		if _, err := s.out.Write([]byte{'\n'}); err != nil {
			return err
		}
		s.torn = false
	}
	n, err := s.out.Write(lines)
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	if err != nil && n > 0 && n < len(lines) && lines[n-1] != '\n' {
		s.torn = true
	}
	return err
}

func (s *sink) close() {
	s.mu.Lock()
	next := s.next
	s.next, s.closed = nil, true
	s.mu.Unlock()
	if next != nil {
		_ = next.Close()
	}
	if s.file != nil {
		_ = s.file.Close()
	}
}
