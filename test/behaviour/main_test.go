// Package behaviour says what the data plane does, seen from outside: real clients, real origins, every downstream protocol to every
// upstream protocol. Nothing here knows how the Engine is built, so the cases hold whatever codecs run under it.
package behaviour

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"gatehouse.dev/gatehouse/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// pattern returns n bytes that differ at every place a codec could cut them.
func pattern(n int) []byte {
	b := make([]byte, 0, n+64)
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		b = append(b, sum[:]...)
	}
	return b[:n]
}

func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %s", what, firstDifference(got, want))
	}
}

func firstDifference(got, want []byte) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("got %d bytes, want %d, first difference at byte %d", len(got), len(want), i)
		}
	}
	return fmt.Sprintf("got %d bytes, want %d, equal up to the shorter end", len(got), len(want))
}

// teapot answers 418 so that a test notices when a request reached the origin that must not.
func teapot(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }

// bodySizes have nothing, one byte, several buffers and more than any window in them.
var bodySizes = []int{0, 1, 64 << 10, 8 << 20}

// box carries what an origin's handler saw to the test: a socket between two goroutines does not order their memory.
type box[T any] struct {
	mu    sync.Mutex
	value T // guarded by mu
}

func (b *box[T]) set(v T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.value = v
}

func (b *box[T]) get() T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.value
}
