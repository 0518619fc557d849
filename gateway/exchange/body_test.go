package exchange

import (
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestBytes(t *testing.T) {
	const text = "a body of some length"
	body := Bytes([]byte(text))
	if body.Length() != int64(len(text)) {
		t.Errorf("length %d, want %d", body.Length(), len(text))
	}
	if err := iotest.TestReader(body, []byte(text)); err != nil {
		t.Error(err)
	}
	if body.Length() != int64(len(text)) {
		t.Errorf("length %d once read, want %d", body.Length(), len(text))
	}
	if err := body.Close(); err != nil || body.Trailers() != nil {
		t.Errorf("Close: %v, trailers: %v", err, body.Trailers())
	}
}

func TestNoBody(t *testing.T) {
	n, err := NoBody.Read(make([]byte, 8))
	if n != 0 || !errors.Is(err, io.EOF) || NoBody.Length() != 0 || NoBody.Trailers() != nil || NoBody.Close() != nil {
		t.Errorf("read %d, %v", n, err)
	}
}

// TestReplay: the same bytes again, with what the source says about itself.
func TestReplay(t *testing.T) {
	source := Bytes([]byte("twelve bytes"))
	read, err := io.ReadAll(source)
	if err != nil {
		t.Fatal(err)
	}
	again := Replay(source, read)
	if n, whole := again.(Ready).Ready(); n != 12 || !whole || again.Length() != 12 {
		t.Errorf("%d bytes ready, whole %v, length %d", n, whole, again.Length())
	}
	if got, err := io.ReadAll(again); err != nil || string(got) != "twelve bytes" {
		t.Errorf("got %q, %v", got, err)
	}
	if n, whole := again.(Ready).Ready(); n != 0 || !whole {
		t.Errorf("at the end: %d bytes ready, whole %v", n, whole)
	}
}
