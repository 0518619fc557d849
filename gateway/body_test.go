package gateway

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// source is a client's body over any reader.
type source struct {
	io.Reader
	trailers exchange.Fields
	closed   int
}

func (s *source) Close() error              { s.closed++; return nil }
func (s *source) Length() int64             { return -1 }
func (s *source) Trailers() exchange.Fields { return s.trailers }

// TestReplay: however much of a body an attempt read, the next one reads all of it, or is not made.
func TestReplay(t *testing.T) {
	aborted := exchange.NewFault(exchange.ClientAborted, nil)
	tests := map[string]struct {
		keep   int
		reader func(string) io.Reader
		first  int // bytes that the first attempt reads; -1 for all and the end
		rewind bool
		end    error
	}{
		"nothing read":          {10, reader, 0, true, nil},
		"nothing read, no keep": {0, reader, 0, true, nil},
		"part read":             {10, reader, 3, true, nil},
		"part read, no keep":    {0, reader, 3, false, nil},
		"all read":              {10, reader, -1, true, nil},
		"exactly the bound":     {6, reader, -1, true, nil},
		"over the bound":        {5, reader, -1, false, nil},
		"over the bound later":  {5, iotestOneByte, 5, true, nil},
		"byte by byte":          {10, iotestOneByte, 4, true, nil},
		"end with the data":     {10, func(s string) io.Reader { return iotest.DataErrReader(strings.NewReader(s)) }, -1, true, nil},
		"client leaves":         {10, func(s string) io.Reader { return io.MultiReader(strings.NewReader(s), iotest.ErrReader(aborted)) }, -1, true, aborted},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			const text = "abcdef"
			b := &requestBody{source: &source{Reader: tt.reader(text)}, keep: tt.keep}
			if tt.first < 0 {
				if got, err := io.ReadAll(b); string(got) != text || !errors.Is(err, tt.end) {
					t.Fatalf("read %q, %v", got, err)
				}
			} else if _, err := io.ReadFull(b, make([]byte, tt.first)); err != nil {
				t.Fatal(err)
			}
			if ok := b.Rewind(); ok != tt.rewind {
				t.Fatalf("rewind %t, want %t", ok, tt.rewind)
			}
			if !tt.rewind {
				return
			}
			for range min(2, tt.keep) {
				if _, err := io.ReadFull(b, make([]byte, 2)); err != nil {
					t.Fatal(err)
				}
				b.Rewind()
			}
			got, err := io.ReadAll(b)
			if !errors.Is(err, tt.end) || string(got) != text {
				t.Errorf("read again %q, %v", got, err)
			}
			if n := b.count.Load(); n != int64(len(text)) {
				t.Errorf("counted %d bytes, want %d", n, len(text))
			}
		})
	}
}

func reader(s string) io.Reader        { return strings.NewReader(s) }
func iotestOneByte(s string) io.Reader { return iotest.OneByteReader(strings.NewReader(s)) }

// TestReplayBound: what is kept is given up for good when the body is longer.
func TestReplayBound(t *testing.T) {
	b := &requestBody{source: &source{Reader: iotest.OneByteReader(strings.NewReader("abcdefgh"))}, keep: 4}
	if got, err := io.ReadAll(b); string(got) != "abcdefgh" || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
	if b.Rewind() || b.kept != nil {
		t.Errorf("%d bytes are kept of a body over the bound", len(b.kept))
	}
}

func TestRequestBodyPassesOn(t *testing.T) {
	s := &source{Reader: strings.NewReader(""), trailers: fieldList("X-Sum: 1", "Host: evil")}
	b := &requestBody{source: s}
	if got := linesOf(b.Trailers()); len(got) != 1 || got[0] != "X-Sum: 1" {
		t.Errorf("trailers %q", got)
	}
	if err := b.Close(); err != nil || s.closed != 1 || b.Length() != -1 {
		t.Errorf("close %v, %d times, length %d", err, s.closed, b.Length())
	}
}

// TestMirrorBody: a mirror gets the very bytes, once, retries or not.
func TestMirrorBody(t *testing.T) {
	m := newMirrorBody(-1)
	b := &requestBody{source: &source{Reader: iotest.OneByteReader(strings.NewReader("abcdef"))}, keep: 10, mirrors: []*mirrorBody{m}}
	var got []byte
	var err error
	var reading sync.WaitGroup
	reading.Go(func() { got, err = io.ReadAll(m) })
	if _, err := io.ReadFull(b, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	b.Rewind()
	if _, err := io.ReadAll(b); err != nil {
		t.Fatal(err)
	}
	reading.Wait()
	if string(got) != "abcdef" || err != nil || m.Length() != -1 || m.Trailers() != nil {
		t.Errorf("the mirror read %q, %v", got, err)
	}
}

// TestMirrorBehind: a mirror that does not keep up loses its copy; it never makes the request wait and never takes a part for the whole.
func TestMirrorBehind(t *testing.T) {
	m := newMirrorBody(-1)
	b := &requestBody{source: &source{Reader: bytes.NewReader(make([]byte, 3*mirrorWindow))}, mirrors: []*mirrorBody{m}}
	if n, err := io.Copy(io.Discard, b); n != 3*mirrorWindow || err != nil {
		t.Fatalf("read %d, %v", n, err)
	}
	if n, err := io.Copy(io.Discard, m); !errors.Is(err, errMirrorBehind) {
		t.Errorf("the mirror read %d, %v", n, err)
	}
	if m.chunks != nil {
		t.Errorf("%d bytes are kept for it", len(m.chunks))
	}
}

// TestMirrorWindow: a mirror that keeps within the window loses nothing, however long the body.
func TestMirrorWindow(t *testing.T) {
	m := newMirrorBody(-1)
	chunk := bytes.Repeat([]byte("x"), mirrorWindow/2)
	for range 10 {
		m.offer(chunk, nil)
		if n, err := io.ReadFull(m, make([]byte, len(chunk))); n != len(chunk) || err != nil {
			t.Fatal(n, err)
		}
	}
	m.offer([]byte("end"), io.EOF)
	if got, err := io.ReadAll(m); string(got) != "end" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestMirrorCut: a request that ends before its body does leaves no mirror waiting, nor one with a part for the whole.
func TestMirrorCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMirrorBody(-1)
		m.offer([]byte("part"), nil)
		ended := make(chan error)
		go func() {
			got, err := io.ReadAll(m)
			if string(got) != "part" {
				t.Errorf("read %q", got)
			}
			ended <- err
		}()
		synctest.Wait()
		_ = m.Close()
		if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v", err)
		}
		m.offer([]byte("more"), nil)
		if n, err := m.Read(make([]byte, 4)); n != 0 || err == nil {
			t.Errorf("read %d, %v after the end", n, err)
		}
	})
	whole := newMirrorBody(4)
	whole.offer([]byte("whole"), io.EOF)
	_ = whole.Close() // the request is over; the mirror is not
	if got, err := io.ReadAll(whole); string(got) != "whole" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}
