package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
)

// fetch makes a request on a connection of its own.
func fetch(t *testing.T, method, url string) (status int, contentType, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), string(text)
}

func listen(t *testing.T, o Options) string {
	t.Helper()
	s, err := Listen("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr()
}

func options() Options {
	return Options{
		Ready:   func() error { return nil },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a_metric 1\n") }),
		Config: func() any {
			return map[string]any{"certificate": config.Certificate{Name: "ns/s", Chain: "chain", Key: config.Secret("private")}}
		},
	}
}

func TestPaths(t *testing.T) {
	base := listen(t, options())
	tests := map[string]struct {
		method, path string
		status       int
		contentType  string
		body         string
	}{
		"index":           {"GET", "/", 200, "text/plain", "/ready"},
		"ready":           {"GET", "/ready", 200, "text/plain", "ready\n"},
		"metrics":         {"GET", "/metrics", 200, "text/plain", "a_metric 1\n"},
		"config":          {"GET", "/config", 200, "application/json", `"key": "[redacted]"`},
		"profiles":        {"GET", "/debug/pprof/", 200, "text/html", "goroutine"},
		"goroutines":      {"GET", "/debug/pprof/goroutine?debug=1", 200, "text/plain", "goroutine profile"},
		"command line":    {"GET", "/debug/pprof/cmdline", 200, "text/plain", "admin.test"},
		"symbol":          {"GET", "/debug/pprof/symbol", 200, "text/plain", "num_symbols"},
		"unknown":         {"GET", "/configs", 404, "text/plain", ""},
		"below ready":     {"GET", "/ready/x", 404, "text/plain", ""},
		"unknown profile": {"GET", "/debug/pprof/none", 404, "text/plain", ""},
		"changes nothing": {"POST", "/config", 405, "text/plain", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			status, contentType, body := fetch(t, tt.method, base+tt.path)
			if status != tt.status || !strings.HasPrefix(contentType, tt.contentType) || !strings.Contains(body, tt.body) {
				t.Errorf("got %d, %s: %s", status, contentType, body)
			}
			if strings.Contains(body, "private") {
				t.Errorf("shows a private key: %s", body)
			}
		})
	}
}

func TestReadyFollows(t *testing.T) {
	var state atomic.Pointer[error]
	o := options()
	o.Ready = func() error { return *state.Load() }
	base := listen(t, o)
	for _, err := range []error{errors.New("no listener could be bound"), nil, errors.New("the first configuration is not applied yet")} {
		state.Store(&err)
		status, _, body := fetch(t, "GET", base+"/ready")
		switch {
		case err == nil && status != http.StatusOK:
			t.Errorf("got %d %s", status, body)
		case err != nil && (status != http.StatusServiceUnavailable || body != err.Error()+"\n"):
			t.Errorf("got %d %s, want %v", status, body, err)
		}
	}
}

// TestConfigThatDoesNotMarshal is an error, not half a document.
func TestConfigThatDoesNotMarshal(t *testing.T) {
	o := options()
	o.Config = func() any { return []any{1, config.RawJSON("{")} }
	if status, _, body := fetch(t, "GET", listen(t, o)+"/config"); status != http.StatusInternalServerError || strings.Contains(body, "[") {
		t.Errorf("got %d %s", status, body)
	}
}

func TestListenTwice(t *testing.T) {
	base := listen(t, options())
	if _, err := Listen(strings.TrimPrefix(base, "http://"), options()); err == nil || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("got %v", err)
	}
}

// TestCloseCuts: a request that goes on, as a profile does, keeps nobody from stopping longer than the context allows.
func TestCloseCuts(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	o := options()
	o.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})
	s, err := Listen("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		transport := &http.Transport{DisableKeepAlives: true}
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.Addr()+"/metrics", nil)
		if response, err := transport.RoundTrip(r); err == nil {
			_ = response.Body.Close()
		}
	}()
	<-arrived
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	<-ended
	close(release)
}

// TestLocalOnly: the configuration and the profiles are for this machine, whatever address the listener has; probes and metrics are not.
func TestLocalOnly(t *testing.T) {
	handler := handler(options())
	cases := map[string]struct {
		remote, host, path string
		want               int
	}{
		"configuration, here":           {"127.0.0.1:5", "127.0.0.1:15000", "/config", 200},
		"by name":                       {"127.0.0.1:5", "localhost:15000", "/config", 200},
		"over IPv6":                     {"[::1]:5", "[::1]:15000", "/config", 200},
		"configuration, from elsewhere": {"10.0.0.7:5", "10.0.0.9:15020", "/config", 403},
		"profiles, from elsewhere":      {"10.0.0.7:5", "10.0.0.9:15020", "/debug/pprof/cmdline", 403},
		"a name of somebody else's":     {"127.0.0.1:5", "rebound.example.com:15000", "/config", 403},
		"readiness, from elsewhere":     {"10.0.0.7:5", "10.0.0.9:15020", "/ready", 200},
		"metrics, from elsewhere":       {"10.0.0.7:5", "10.0.0.9:15020", "/metrics", 200},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+tc.host+tc.path, nil)
			r.RemoteAddr = tc.remote
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != tc.want {
				t.Errorf("status %d, want %d", w.Code, tc.want)
			}
		})
	}
}
