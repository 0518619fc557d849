package harness

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// xconnect makes net/http take extended CONNECT (RFC 8441); it reads the variable once, when the process starts.
const xconnect = "http2xconnect=1"

// Main runs a package's tests, with extended CONNECT enabled, and fails it when goroutines are left after them.
func Main(m *testing.M) {
	if debug := os.Getenv("GODEBUG"); !strings.Contains(debug, xconnect) {
		if self, err := os.Executable(); err == nil {
			os.Setenv("GODEBUG", strings.TrimPrefix(debug+","+xconnect, ","))
			_ = syscall.Exec(self, os.Args, os.Environ()) // returns only when it failed: the tests then tell
		}
	}
	code := m.Run()
	if code == 0 {
		if left := Leaked(5 * time.Second); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "%d goroutines are left after the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// Leaked returns the stacks of goroutines that should be over, polling until none is left or patience ends.
func Leaked(patience time.Duration) []string {
	deadline := time.Now().Add(patience)
	for {
		left := interesting()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		runtime.Gosched()
		time.Sleep(10 * time.Millisecond) // nothing signals the end of a goroutine
	}
}

// interesting leaves out the goroutines of the runtime, of package testing and the caller.
func interesting() []string {
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var left []string
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i == 0 || strings.Contains(stack, "testing.RunTests") || strings.Contains(stack, "testing.(*T).Run") ||
			strings.Contains(stack, "os/signal.") || strings.Contains(stack, "runtime.goexit0") ||
			strings.Contains(stack, "testing.tRunner.func") || strings.Contains(stack, "testing.(*M)") {
			continue
		}
		left = append(left, stack)
	}
	return left
}
