package main

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// gatewayRole, in the environment, makes the test binary play a gateway: one of the roles below.
const gatewayRole = "BOOKINFO_TEST_GATEWAY"

// playGateway is the child process. Its last argument is the URL of the test's own server, which stands for the gateway's admin
// listener: the child tells it when it is ready to take signals.
func playGateway(role string) int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if role == "exits" {
		return 7
	}
	resp, err := http.Post(os.Args[len(os.Args)-1]+"/started", "text/plain", nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 9
	}
	_ = resp.Body.Close()
	fmt.Println("child got", <-signals)
	if role == "killed" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return 5
}

// newAdmin serves /ready: 200 once the child has posted to /started, unless it is never to be ready.
func newAdmin(t *testing.T, never bool) string {
	var started atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/started":
			started.Store(true)
		case never || !started.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestDemo(t *testing.T) {
	const anyCode = -1
	tests := map[string]struct {
		role     string
		send     os.Signal // after the guide was printed
		timeout  time.Duration
		wantCode int
		wantOut  string
		wantErr  string
	}{
		"interrupt is passed on": {role: "serves", send: os.Interrupt, wantCode: 5, wantOut: "child got interrupt"},
		"termination likewise":   {role: "serves", send: syscall.SIGTERM, wantCode: 5, wantOut: "child got terminated"},
		"hang-up means stop":     {role: "serves", send: syscall.SIGHUP, wantCode: 5, wantOut: "child got terminated"},
		"killed child":           {role: "killed", send: os.Interrupt, wantCode: 137},
		"exits before ready":     {role: "exits", wantCode: 7, wantErr: "ended with code 7 before it was ready"},
		// The child may be terminated before it could ask for signals.
		"never ready": {role: "never-ready", timeout: 200 * time.Millisecond, wantCode: anyCode, wantErr: "did not answer 200 within 200ms"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv(gatewayRole, tt.role)
			admin := newAdmin(t, tt.role == "never-ready")
			out := newOutput("The gateway serves.")
			d := demo{
				command: []string{os.Args[0], "run", "--config", "some/folder", admin}, readyURL: admin + "/ready",
				readyTimeout: cmp.Or(tt.timeout, time.Minute), ca: "some/ca.crt", stdout: out, stderr: out,
			}
			signals := make(chan os.Signal, 1)
			if tt.send != nil {
				go func() {
					<-out.seen
					signals <- tt.send
				}()
			}
			code, err := d.run(testSettings("http://127.0.0.1:1"), signals)
			if code != tt.wantCode && tt.wantCode != anyCode || !strings.Contains(errorText(err), tt.wantErr) || tt.wantErr == "" && err != nil {
				t.Errorf("code %d, error %v, want %d, %q\n%s", code, err, tt.wantCode, tt.wantErr, out)
			}
			if !strings.Contains(out.String(), tt.wantOut) {
				t.Errorf("%q is not in the output:\n%s", tt.wantOut, out)
			}
		})
	}
}

func TestDemoGuide(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := demo{command: []string{"bin/gatehouse", "run", "--config=my/folder"}, readyURL: "http://127.0.0.1:15000/ready", ca: "st/ca.crt", stdout: &out, stderr: &out}
	d.printGuide()
	for _, want := range []string{
		"http://localhost:8080/productpage", "http://127.0.0.1:15000/config", "--http2 --cacert st/ca.crt", "get --http3 --cacert st/ca.crt",
		"explain --config my/folder --state .state GET", "validate --state .state my/folder", "http://127.0.0.1:19086/count",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the guide:\n%s", want, out.String())
		}
	}
}

func TestDemoCommandMissing(t *testing.T) {
	t.Parallel()
	d := demo{command: []string{"/does/not/exist"}, readyURL: "http://127.0.0.1:1/ready", readyTimeout: time.Minute}
	code, err := d.run(testSettings("http://127.0.0.1:1"), nil)
	if code != 1 || !strings.Contains(errorText(err), "/does/not/exist") {
		t.Errorf("code %d, error %v", code, err)
	}
}

func TestFlagValue(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		want string
	}{
		"two words": {[]string{"gatehouse", "--state", "a"}, "a"},
		"one word":  {[]string{"gatehouse", "--state=b", "x"}, "b"},
		"absent":    {[]string{"gatehouse"}, "fallback"},
		"cut off":   {[]string{"gatehouse", "--state"}, "fallback"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := flagValue(tt.args, "state", "fallback"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
