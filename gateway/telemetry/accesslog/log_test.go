package accesslog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

func open(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func request(target string) *exchange.Exchange {
	x := &exchange.Exchange{
		Start: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		Req:   exchange.Head{Method: "GET", Authority: "shop.example", Target: target},
		Peer:  exchange.Peer{Proto: exchange.HTTP2, Bind: "*:443", Remote: netip.MustParseAddrPort("192.0.2.7:4711")},
		Resp:  exchange.Response{Status: 200},
	}
	x.Req.Fields.Add("User-Agent", "curl/8")
	x.Req.Fields.Add("X-Request-Id", "req-1")
	return x
}

func decode(t testing.TB, lines string) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(lines) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		out = append(out, m)
	}
	return out
}

func TestLine(t *testing.T) {
	full := request("/cart/%41?token=secret")
	full.Route, full.Cluster, full.Endpoint = &exchange.RouteRef{Route: "HTTPRoute/a/shop", Rule: "buy"}, "Service/a/cart/80", "10.0.0.1:8080"
	full.Attempts, full.BytesIn, full.BytesOut, full.TraceID = 2, 5, 130, "4bf92f3577b34da6a3ce929d0e0e4736"
	full.Resp.Status, full.Fault = 502, exchange.NewFault(exchange.UpstreamReset, errors.New("connection reset"))
	bare := &exchange.Exchange{Start: full.Start, Peer: exchange.Peer{Proto: 99}}
	hostile := request("/a\"\n{\"status\":200}\x00\xff\u2028<script>")
	hostile.Req.Fields.Set("User-Agent", "x\r\ny\x1b[31m")
	long := request("/" + strings.Repeat("é", maxText))

	tests := map[string]struct {
		x     *exchange.Exchange
		query bool
		want  map[string]any
	}{
		"everything": {x: full, want: map[string]any{
			"time": "2026-01-02T03:04:05.000006Z", "level": "INFO", "msg": "access", "duration_us": 1500.0, "status": 502.0,
			"flag": "upstream_reset", "detail": "connection reset", "method": "GET", "authority": "shop.example", "path": "/cart/%41",
			"protocol": "HTTP/2", "bytes_in": 5.0, "bytes_out": 130.0, "route": "HTTPRoute/a/shop", "rule": "buy",
			"cluster": "Service/a/cart/80", "endpoint": "10.0.0.1:8080", "attempts": 2.0, "bind": "*:443", "client": "192.0.2.7:4711",
			"user_agent": "curl/8", "request_id": "req-1", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
		}},
		"with query": {x: full, query: true, want: map[string]any{"path": "/cart/%41?token=secret"}},
		"bare": {x: bare, want: map[string]any{
			"flag": "-", "status": 0.0, "protocol": "unknown", "route": "", "rule": "", "client": "", "trace_id": "", "detail": nil,
		}},
		"hostile": {x: hostile, want: map[string]any{
			"path": "/a\"\n{\"status\":200}\x00\uFFFD\u2028<script>", "user_agent": "x\r\ny\x1b[31m", "status": 200.0,
		}},
		"long": {x: long, want: map[string]any{"path": "/" + strings.Repeat("é", maxText/2-1) + "\uFFFD...", "request_id": "req-1"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			l := open(t, Options{Writer: &out, Query: tt.query})
			l.Record(tt.x, &Entry{Took: 1500 * time.Microsecond, Authority: "shop.example"})
			closeLog(t, l)
			if n := bytes.Count(out.Bytes(), []byte("\n")); n != 1 {
				t.Fatalf("%d lines: %q", n, &out)
			}
			got := decode(t, out.String())[0]
			for key, want := range tt.want {
				if diff := cmp.Diff(want, got[key]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", key, diff)
				}
			}
			if name == "everything" && len(got) != len(tt.want) {
				t.Errorf("got %d keys, want %d: %v", len(got), len(tt.want), got)
			}
		})
	}
}

// TestViewsAreCopied overwrites the exchange's buffer as the owner of it does after the exchange.
func TestViewsAreCopied(t *testing.T) {
	pr, pw := io.Pipe()
	l := open(t, Options{Writer: pw})
	buf := []byte("/original")
	x := request("")
	x.Req.Target = unsafe.String(&buf[0], len(buf))
	l.Record(x, &Entry{})
	copy(buf, "/xxxxxxxx")
	line, err := bufio.NewReader(pr).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if got := decode(t, line)[0]["path"]; got != "/original" {
		t.Errorf("path %q", got)
	}
	closeLog(t, l)
}

// TestStuckSinkBlocksNobody writes to a pipe that nobody reads: every Record returns, the surplus is counted, and what was
// buffered comes out when the reader turns up.
func TestStuckSinkBlocksNobody(t *testing.T) {
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	l := open(t, Options{Writer: pw, Buffer: 1}) // the least: minShard each
	const tries = 20_000
	for range tries {
		l.Record(request("/"), &Entry{})
	}
	full := l.Stats().Full
	if full == 0 || full == tries {
		t.Fatalf("%d of %d lines dropped", full, tries)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no time left"))
	if err := l.Close(ctx); err == nil || !strings.Contains(err.Error(), "no time left") {
		t.Errorf("close of a stuck log: %v", err)
	}

	counted := make(chan int)
	go func() {
		n := 0
		for scanner := bufio.NewScanner(pr); scanner.Scan(); {
			n++
		}
		counted <- n
	}()
	closeLog(t, l)
	l.Record(request("/late"), &Entry{})
	pw.Close()
	n := <-counted
	if s := l.Stats(); uint64(n) != s.Written || s.Written+s.Full != tries+1 || s.Full != full+1 {
		t.Errorf("%d lines read, stats %+v, want %d in all", n, s, tries+1)
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := open(t, Options{Path: path})
	l.Record(request("/before"), &Entry{})
	waitFor(t, func() bool { return l.Stats().Written == 1 })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	for range 3 { // more than once before the writer wakes
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	l.Record(request("/after"), &Entry{})
	closeLog(t, l)
	for file, want := range map[string]string{path + ".1": "/before", path: "/after"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if lines := decode(t, string(data)); len(lines) != 1 || lines[0]["path"] != want {
			t.Errorf("%s: %s", file, data)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("mode %v, %v: others can read it", info.Mode(), err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("a closed log was reopened")
	}
}

func TestReopenKeepsTheOldFileOnError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Path: filepath.Join(dir, "access.log")})
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("a file in a missing directory was opened")
	}
	l.Record(request("/"), &Entry{})
	closeLog(t, l)
	if data, _ := os.ReadFile(filepath.Join(dir+".moved", "access.log")); len(data) == 0 {
		t.Error("the line is not in the old file")
	}
	if _, err := Open(Options{Path: filepath.Join(dir, "access.log")}); err == nil {
		t.Error("a file in a missing directory was opened")
	}
}

// faultyWriter takes half a line and fails, then works.
type faultyWriter struct {
	bytes.Buffer
	failed bool
}

func (w *faultyWriter) Write(p []byte) (int, error) {
	if w.failed {
		return w.Buffer.Write(p)
	}
	w.failed = true
	n, _ := w.Buffer.Write(p[:len(p)/2])
	return n, errors.New("no space left on device")
}

func TestWriteErrors(t *testing.T) {
	var out faultyWriter
	var messages bytes.Buffer
	l := open(t, Options{Writer: &out, Logger: slog.New(slog.NewTextHandler(&messages, nil))})
	l.Record(request("/lost"), &Entry{})
	waitFor(t, func() bool { return l.Stats().Failed == 1 })
	l.Record(request("/kept"), &Entry{})
	closeLog(t, l)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 2 || decode(t, lines[1])[0]["path"] != "/kept" {
		t.Errorf("got %q", out.String())
	}
	if s := l.Stats(); s.Written != 1 || s.Failed != 1 {
		t.Errorf("stats %+v", s)
	}
	if !strings.Contains(messages.String(), "no space left") {
		t.Errorf("messages %q", &messages)
	}
}

// TestOrder holds that lines stand in the order their exchanges ended, whichever shard they went through.
func TestOrder(t *testing.T) {
	var out bytes.Buffer
	l := open(t, Options{Writer: &out})
	const lines = 500
	for i := range lines {
		x := request("/" + strconv.Itoa(i))
		x.Start = x.Start.Add(time.Duration(i) * time.Microsecond)
		l.shards[i%len(l.shards)].put(x)
	}
	l.Record(request("/500"), &Entry{Took: time.Hour})
	closeLog(t, l)
	for i, line := range decode(t, out.String()) {
		if want := "/" + strconv.Itoa(i); line["path"] != want {
			t.Fatalf("line %d is %v", i, line["path"])
		}
	}
}

func (s *shard) put(x *exchange.Exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(x, &Entry{}, "", false)
}

// TestConcurrentUse is for the race detector, and holds that every line is written or counted as dropped.
func TestConcurrentUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := open(t, Options{Path: path, Buffer: 1})
	const workers, rounds = 4, 2000
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range rounds {
				l.Record(request("/"), &Entry{})
				if i%500 == 0 {
					if err := l.Reopen(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	closeLog(t, l)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Written+s.Full != workers*rounds || s.Failed != 0 || uint64(len(decode(t, string(data)))) != s.Written {
		t.Errorf("stats %+v, want %d in all", s, workers*rounds)
	}
}

func TestBatchGivesABurstBack(t *testing.T) {
	b := batch{text: make([]byte, 0, 2*keepText)}
	use := func(bytes, times int) {
		for range times {
			b.text = append(b.text, make([]byte, bytes)...)
			b.records = append(b.records, record{status: 200})
			b.reset()
		}
	}
	use(10, keepFor-1)
	use(keepText, 1)
	use(10, keepFor-1)
	if cap(b.text) != 2*keepText || b.size() != 0 || cap(b.records) == 0 || b.records[:1][0] != (record{}) {
		t.Errorf("while it may be needed again: room for %d bytes, %d in use", cap(b.text), b.size())
	}
	use(10, 1)
	if cap(b.text) != 0 || cap(b.records) != 0 {
		t.Errorf("room for %d bytes kept", cap(b.text))
	}
	use(10, 2*keepFor)
	if cap(b.text) == 0 {
		t.Error("a small buffer is not kept")
	}
}

func FuzzLine(f *testing.F) {
	f.Add("GET", "shop.example", "/a?b", "curl")
	f.Add("", "\x00", "/\xff\n\"", "</script>\u2028")
	f.Fuzz(func(t *testing.T, method, authority, target, agent string) {
		var out bytes.Buffer
		l := open(t, Options{Writer: &out})
		x := request(target)
		x.Req.Method = method
		x.Req.Fields.Set("User-Agent", agent)
		l.Record(x, &Entry{Authority: authority})
		closeLog(t, l)
		if bytes.Count(out.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("not one line: %q", &out)
		}
		if got := decode(t, out.String())[0]; got["request_id"] != "req-1" || strings.Contains(got["path"].(string), "?") {
			t.Fatalf("line %v", got)
		}
	})
}

// waitFor polls: the writer goroutine has no signal to give.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 10 s")
		}
	}
}
