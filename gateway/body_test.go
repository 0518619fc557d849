package gateway

import (
	"io"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// piecemeal is a body that comes in pieces, as over HTTP/2, and says its end apart from its last byte.
type piecemeal struct {
	exchange.Body
	length int64
	pieces []string
}

func (p *piecemeal) Length() int64 { return p.length }

func (p *piecemeal) Read(b []byte) (int, error) {
	if len(p.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.pieces[0])
	if p.pieces[0] = p.pieces[0][n:]; p.pieces[0] == "" {
		p.pieces = p.pieces[1:]
	}
	return n, nil
}

func (p *piecemeal) Ready() (int, bool) {
	if len(p.pieces) == 0 {
		return 0, true
	}
	return len(p.pieces[0]), false
}

// TestBodyEndsBeforeItsLastByteGoesOut: a body that is longer than its length is told from one that is whole before anybody has the whole of it.
func TestBodyEndsBeforeItsLastByteGoesOut(t *testing.T) {
	cases := map[string]struct {
		length int64
		pieces []string
		ready  int // in memory at first
		end    error
	}{
		"whole":              {5, []string{"he", "llo"}, 2, io.EOF},
		"one piece":          {5, []string{"hello"}, 4, io.EOF},
		"beyond, in a piece": {1, []string{"h", "iii"}, 0, nil},
		"of unknown length":  {-1, []string{"he", "llo"}, 2, io.EOF},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			b := &requestBody{source: &piecemeal{length: tc.length, pieces: tc.pieces}}
			if n, whole := b.Ready(); n != tc.ready || whole {
				t.Errorf("ready: %d, %t; want %d", n, whole, tc.ready)
			}
			var last error
			for last == nil {
				_, last = b.Read(make([]byte, 16))
			}
			fault := exchange.AsFault(last, exchange.ClientAborted)
			switch {
			case tc.end == io.EOF && last != io.EOF:
				t.Errorf("the body ends with %v", last)
			case tc.end == nil && fault.Kind != exchange.BadRequest:
				t.Errorf("a body beyond its length ends with %v", last)
			}
		})
	}
}
