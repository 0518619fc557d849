package load

import (
	"strings"
	"testing"
	"time"
)

func TestParseWrk(t *testing.T) {
	tests := map[string]struct {
		out     string
		want    Result
		wantErr string
	}{
		"clean": {
			out: "Running 5s test @ http://127.0.0.1:8080/b/130\n  1 threads and 64 connections\n297500 requests in 5.00s, 63.21MB read\n" +
				"report 297500 5001000 66280000 0 0 980 2100 4400\n",
			want: Result{Tool: "wrk", Requests: 297500, Seconds: 5.001, Bytes: 66280000,
				P50: 980 * time.Microsecond, P99: 2100 * time.Microsecond, P999: 4400 * time.Microsecond},
		},
		"errors": {
			out: "report 100 1000000 5000 3 7 1 2 3\n",
			want: Result{Tool: "wrk", Requests: 93, Errors: 10, Seconds: 1, Bytes: 5000, P50: 1000, P99: 2000, P999: 3000,
				FirstError: "wrk counts 3 broken connections and 7 bad statuses"},
		},
		"no report":  {out: "Running 5s test\n", wantErr: "no report"},
		"too short":  {out: "report 1 2 3\n", wantErr: "no report"},
		"not number": {out: "report 1 2 3 4 5 6 7 nan\n", wantErr: "invalid syntax"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseWrk([]byte(tt.out))
			check(t, got, tt.want, err, tt.wantErr)
		})
	}
}

func TestParseH2load(t *testing.T) {
	const report = `starting benchmark...
Warm-up started for thread #0.
TLS Protocol: TLSv1.3
Application protocol: h2

finished in 2.01s, 1.50 req/s, 7.92MB/s
requests: 4 total, 10 started, 4 done, 3 succeeded, 1 failed, 1 errored, 0 timeout
status codes: 3 2xx, 0 3xx, 0 4xx, 1 5xx
`
	tests := map[string]struct {
		out, log string
		want     Result
		wantErr  string
	}{
		"with a failure": {
			out: report, log: "1700000000000000\t200\t1000\n1700000000000100\t200\t3000\n1700000000000100\t502\t9999999\n1700000000000200\t200\t2000\n",
			want: Result{Tool: "h2load", Requests: 3, Errors: 1, Seconds: 2.01, P50: 2 * time.Millisecond, P99: 3 * time.Millisecond,
				P999: 3 * time.Millisecond, FirstError: "h2load: requests: 4 total, 10 started, 4 done, 3 succeeded, 1 failed"},
		},
		"milliseconds": {
			out:  "finished in 950.20ms, 3.00 req/s\nrequests: 3 total, 3 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout\n",
			want: Result{Tool: "h2load", Requests: 3, Seconds: 0.9502},
		},
		"no report": {out: "could not connect\n", wantErr: "not understood"},
		"bad log":   {out: report, log: "1 200 x\n", wantErr: "log"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseH2load([]byte(tt.out), strings.NewReader(tt.log))
			check(t, got, tt.want, err, tt.wantErr)
		})
	}
}

// check compares results; percentiles within what Hist promises.
func check(t *testing.T, got, want Result, err error, wantErr string) {
	t.Helper()
	if wantErr != "" {
		if err == nil || !strings.Contains(err.Error(), wantErr) {
			t.Fatalf("error %v, want %q", err, wantErr)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range [][2]*time.Duration{{&got.P50, &want.P50}, {&got.P99, &want.P99}, {&got.P999, &want.P999}} {
		if off := *p[0] - *p[1]; off >= 0 && off <= *p[1]/64 {
			*p[0] = *p[1]
		}
	}
	if got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestWrkScript(t *testing.T) {
	if got := wrkScript(small()); strings.Contains(got, "request =") {
		t.Errorf("one plain request needs no function for each:\n%s", got)
	}
	got := wrkScript([]Request{{Path: "/r1/b/130", Header: "X-Tenant: t1"}, {Path: "/r2/b/130"}})
	for _, want := range []string{`wrk.format("GET", "/r1/b/130", {["Host"] = wrk.headers["Host"], ["X-Tenant"] = "t1"})`, `"/r2/b/130", nil)`, "report"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

func TestH3AnswerRefuses(t *testing.T) {
	for name, answer := range map[string]string{
		"cut frame":  "\x01\x05\x00\x00\xd9",
		"no status":  "\x01\x02\x00\x00",
		"cut varint": "\x40",
	} {
		if _, err := h3Answer([]byte(answer)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if n, err := h3Answer([]byte("\x01\x03\x00\x00\xd9\x00\x02hi\x21\x01x\x00\x01!")); n != 3 || err != nil {
		t.Errorf("%d bytes, %v: DATA frames hold three bytes, an unknown frame between them counts nothing", n, err)
	}
}
