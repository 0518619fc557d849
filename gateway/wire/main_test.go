package wire_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the package when goroutines of ours or of gRPC are left after its tests.
func TestMain(m *testing.M) {
	code := m.Run()
	deadline := time.Now().Add(5 * time.Second)
	for code == 0 {
		left := goroutines()
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "%d goroutines are left after the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
		time.Sleep(10 * time.Millisecond) // nothing signals the end of a goroutine
	}
	os.Exit(code)
}

func goroutines() (left []string) {
	buf := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		ours := strings.Contains(stack, "gatehouse/gateway/wire") || strings.Contains(stack, "google.golang.org/grpc")
		if ours && !strings.Contains(stack, "wire_test.TestMain") {
			left = append(left, stack)
		}
	}
	return left
}
