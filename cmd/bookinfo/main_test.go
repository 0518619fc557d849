package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestMain lets the test binary play the gateway that `bookinfo demo` starts; see demo_test.go.
func TestMain(m *testing.M) {
	if role := os.Getenv(gatewayRole); role != "" {
		os.Exit(playGateway(role))
	}
	os.Exit(m.Run())
}

// testSettings are settings with ports chosen by the kernel.
func testSettings(gateway string) *settings {
	s := defaultSettings()
	for name := range s.ports {
		s.ports[name] = 0
	}
	s.gateway = gateway
	return s
}

// startTest runs the services for one test.
func startTest(t *testing.T, gateway string) *bookinfo {
	t.Helper()
	b, err := start(testSettings(gateway))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return b
}

// testClient returns a client whose connections end with the test.
func testClient(t *testing.T) *http.Client {
	c := newClient()
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// do sends a request and returns status, header and body.
func do(t *testing.T, method, url string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := testClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// output is a buffer that a child process and the demo may write at once, and that a test can wait on.
type output struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	marker string
	seen   chan struct{}
}

func newOutput(marker string) *output { return &output{marker: marker, seen: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := strings.Contains(o.buf.String(), o.marker)
	n, err := o.buf.Write(p)
	if !before && strings.Contains(o.buf.String(), o.marker) {
		close(o.seen)
	}
	return n, err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func TestRunServesUntilSignal(t *testing.T) {
	t.Parallel()
	out := newOutput("The page:")
	signals := make(chan os.Signal, 1)
	done := make(chan error, 1)
	go func() { done <- serve(testSettings("http://127.0.0.1:1"), signals, out) }()
	<-out.seen
	signals <- syscall.SIGTERM
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, name := range serviceNames() {
		if !strings.Contains(out.String(), name) {
			t.Errorf("service %s is not in the output:\n%s", name, out.String())
		}
	}
}

func TestRunRejectsBadArguments(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		want string
	}{
		"unknown flag":         {[]string{"--nonsense"}, "unknown flag: --nonsense"},
		"unknown command":      {[]string{"nonsense"}, `unknown command "nonsense"`},
		"demo without gateway": {[]string{"demo"}, "requires at least 1 arg"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if code := run(tt.args, nil, &stdout, &stderr); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("stderr %q, want %q in it", stderr.String(), tt.want)
			}
		})
	}
}
