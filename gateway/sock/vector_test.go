package sock

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
)

func TestWriteVector(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // more than a socket's buffer takes
	tests := map[string][3][]byte{
		"one piece":           {[]byte("head")},
		"the middle":          {nil, []byte("body")},
		"all":                 {[]byte("head"), []byte("body"), []byte("tail")},
		"nothing":             {},
		"big in the middle":   {[]byte("head"), big, []byte("tail")},
		"big first and last":  {big, []byte("body"), big},
		"empty in the middle": {[]byte("head"), nil, []byte("tail")},
	}
	for name, pieces := range tests {
		t.Run(name, func(t *testing.T) {
			c, peer := pair(t, nil)
			want := bytes.Join(pieces[:], nil)
			got := make([]byte, len(want))
			read := make(chan error, 1)
			go func() {
				_, err := io.ReadFull(peer, got)
				read <- err
			}()
			var v Vector
			if n, err := c.WriteVector(&v, pieces); n != len(want) || err != nil {
				t.Fatalf("wrote %d of %d, %v", n, len(want), err)
			}
			if err := <-read; err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes arrived changed, or %v", len(got), err)
			}
		})
	}
}

func TestWriteVectorEnds(t *testing.T) {
	c, _ := pair(t, nil)
	var v Vector
	done := make(chan error, 1)
	go func() {
		_, err := c.WriteVector(&v, [3][]byte{nil, make([]byte, 64<<20)}) // the peer does not read
		done <- err
	}()
	c.Interrupt()
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func TestWriteVectorAllocatesNothing(t *testing.T) {
	c, peer := pair(t, nil)
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	var v Vector
	pieces := [3][]byte{[]byte("head"), []byte("body"), []byte("tail")}
	if allocs := testing.AllocsPerRun(100, func() { _, _ = c.WriteVector(&v, pieces) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
