package behaviour

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/test/harness"
)

func limits(l downstream.Limits) func(*harness.EnvOptions) {
	return func(o *harness.EnvOptions) { o.Limits = l }
}

func TestHeaderLimits(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, teapot, limits(downstream.Limits{MaxHeaderBytes: 16 << 10, MaxHeaderCount: 50}))
		many, few := harness.Fields{}, harness.Fields{}
		for i := range 60 {
			many = append(many, harness.Field{Name: "X-" + strconv.Itoa(i), Value: "v"})
		}
		for i := range 30 {
			few = append(few, harness.Field{Name: "X-" + strconv.Itoa(i), Value: "v"})
		}
		for name, tc := range map[string]struct {
			fields harness.Fields
			want   int
		}{
			"within":         {few, 418},
			"many fields":    {many, 431},
			"one long":       {harness.F("X-Long", strings.Repeat("a", 15<<10)), 418},
			"one too long":   {harness.F("X-Long", strings.Repeat("a", 40<<10)), 431},
			"long name":      {harness.F("X-"+strings.Repeat("a", 40<<10), "v"), 431},
			"many crumbs":    {crumbs(40, 1<<10), 431},
			"many same name": {repeat("X-Same", 60), 431},
		} {
			r, err := harness.Do(env.NewClient(t), harness.Request{Fields: tc.fields})
			if err != nil && tc.want == 431 && !d.IsH1() {
				continue // a reset stream or closed connection refuses as well
			}
			if err != nil || r.Status != tc.want {
				t.Errorf("%s: got %+v, %v, want %d", name, r, err, tc.want)
			}
		}
	})
}

func crumbs(n, size int) (fields harness.Fields) {
	for i := range n {
		fields = append(fields, harness.Field{Name: "cookie", Value: strconv.Itoa(i) + "=" + strings.Repeat("c", size)})
	}
	return fields
}

func repeat(name string, n int) (fields harness.Fields) {
	for range n {
		fields = append(fields, harness.Field{Name: name, Value: "v"})
	}
	return fields
}

func TestBodyLimit(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				w.WriteHeader(http.StatusTeapot)
			}
		}, limits(downstream.Limits{MaxBodyBytes: 1000}))
		for name, tc := range map[string]struct {
			size    int
			unsized bool
			want    int
		}{
			"sized, at the limit":     {1000, false, 418},
			"sized, over it":          {1001, false, 413},
			"unsized, at the limit":   {1000, true, 418},
			"unsized, over it":        {1001, true, 413},
			"sized, far over it":      {1 << 20, false, 413},
			"unsized, far over it":    {1 << 20, true, 413},
			"nothing is not too much": {0, true, 418},
		} {
			r, err := harness.Do(env.NewClient(t), harness.Request{Method: "POST", Body: pattern(tc.size), Unsized: tc.unsized})
			if err != nil && tc.want == 413 && tc.size > 2000 {
				continue // the rest of the body may run into the closed connection
			}
			if err != nil || r.Status != tc.want {
				t.Errorf("%s: got %+v, %v, want %d", name, r, err, tc.want)
			}
		}
	})
}

func TestHeaderTimeout(t *testing.T) {
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, teapot, limits(downstream.Limits{HeaderTimeout: 100 * time.Millisecond}))
	for name, data := range map[string]string{"half a line": "GET / HT", "half a head": "GET / HTTP/1.1\r\nHost: x\r\n"} {
		start := time.Now()
		got, err := harness.Raw(env.Address(), data, harness.Patience)
		if err == nil || time.Since(start) >= harness.Patience || strings.HasPrefix(got, "HTTP/1.1 2") {
			t.Errorf("%s: got %q, %v after %v, want a closed connection", name, got, err, time.Since(start))
		}
	}
}

func TestHandshakeTimeout(t *testing.T) {
	env := harness.New(t, harness.Combo{Down: harness.H1TLS, Up: harness.UpH1}, teapot, limits(downstream.Limits{HandshakeTimeout: 100 * time.Millisecond}))
	start := time.Now()
	if _, err := harness.Raw(env.Address(), "\x16\x03\x01", harness.Patience); err == nil || time.Since(start) >= harness.Patience {
		t.Errorf("a handshake that stalls is kept for %v", time.Since(start))
	}
	if r := harness.MustDo(t, env.Client, harness.Request{}); r.Status != 418 {
		t.Errorf("a good handshake after it: got %d", r.Status)
	}
}

func TestBodyIdleTimeout(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
		}, limits(downstream.Limits{BodyIdleTimeout: 150 * time.Millisecond}))
		s := harness.MustOpen(t, env.Client, harness.Request{Method: "POST", Streaming: true})
		harness.MustWrite(t, s, "begun")
		r, err := harness.Final(s)
		if err == nil && r.Status != 408 || err != nil && d.IsH1() {
			t.Errorf("got %+v, %v, want 408", r, err)
		}
	})
}

// TestIdleTimeoutLeavesRequestsAlone has an origin take longer than a connection may be idle.
func TestIdleTimeoutLeavesRequestsAlone(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		const idle = 200 * time.Millisecond
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, func(w http.ResponseWriter, _ *http.Request) {
			<-time.After(6 * idle)
			w.WriteHeader(http.StatusTeapot)
		}, limits(downstream.Limits{IdleTimeout: idle}))
		if r, err := harness.Do(env.Client, harness.Request{}); err != nil || r.Status != http.StatusTeapot {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

func TestIdleTimeout(t *testing.T) {
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, teapot, limits(downstream.Limits{IdleTimeout: 100 * time.Millisecond}))
	start := time.Now()
	got, err := harness.Raw(env.Address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", harness.Patience)
	if !strings.HasPrefix(got, "HTTP/1.1 418") || err != io.EOF || time.Since(start) >= harness.Patience {
		t.Errorf("got %.40q, %v after %v, want the connection closed after its answer", got, err, time.Since(start))
	}
}

func TestMaxConnections(t *testing.T) {
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, teapot, limits(downstream.Limits{MaxConnections: 3}))
	const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	open := func() (net.Conn, bool) {
		conn, err := net.Dial("tcp", env.Address())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(harness.Patience))
		io.WriteString(conn, request)
		n, _ := conn.Read(make([]byte, 4096))
		return conn, n > 0
	}
	var kept []net.Conn
	for i := range 3 {
		conn, ok := open()
		defer conn.Close()
		if !ok {
			t.Fatalf("connection %d was refused", i)
		}
		kept = append(kept, conn)
	}
	if conn, ok := open(); ok {
		conn.Close()
		t.Fatal("a connection over the limit was served")
	}
	io.WriteString(kept[0], request) // those within the limit go on
	if n, err := kept[0].Read(make([]byte, 4096)); n == 0 {
		t.Errorf("an old connection was given up for a new one: %v", err)
	}
	kept[1].Close()
	deadline := time.Now().Add(harness.Patience)
	for { // the gateway notices the close in its own time
		conn, ok := open()
		conn.Close()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a closed connection does not make room")
		}
	}
}
