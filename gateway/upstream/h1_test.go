package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// peer is an endpoint's end of a connection.
type peer struct {
	net.Conn
	in     *bufio.Reader
	number int // of the connection, from 1 on
}

// request reads a request, body and all, and returns it with the body.
func (p *peer) request() (*http.Request, string, bool) {
	r, err := http.ReadRequest(p.in)
	if err != nil {
		return nil, "", false
	}
	body, err := io.ReadAll(r.Body)
	return r, string(body), err == nil
}

func (p *peer) say(text string) { _, _ = io.WriteString(p, text) }

// ok answers 200 with a body of known length.
func (p *peer) ok(body string) {
	p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
}

// gone waits until the other side closed, and tells what came until then.
func (p *peer) gone() string {
	rest, _ := io.ReadAll(p.in)
	return string(rest)
}

// peers is an endpoint whose connections are served at the same time, each by script.
func peers(t *testing.T, script func(p *peer)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				script(&peer{c, bufio.NewReader(c), n})
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

// fetched is what one exchange brought.
type fetched struct {
	status int
	body   string
	fault  *exchange.Fault
}

// fetch makes one whole exchange; fields are of the request.
func fetch(t *testing.T, e *Endpoint, method string, body exchange.Body, fields ...string) (got fetched) {
	t.Helper()
	a, fault := roundTrip(t.Context(), e, &Attempt{Request: request(t, method, "/", fields...), Body: body})
	if fault != nil {
		return fetched{fault: fault}
	}
	text, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	fault, _ = errors.AsType[*exchange.Fault](err)
	return fetched{a.Response.Status, string(text), fault}
}

func (f fetched) String() string { return fmt.Sprintf("%d %q %v", f.status, f.body, f.fault) }

// first returns a cluster's only endpoint.
func first(c *Cluster) *Endpoint { return c.set.Load().list[0] }

// passTime makes idle connections older.
func passTime(e *Endpoint, by time.Duration) {
	pool := e.client.h1
	pool.mu.Lock()
	defer pool.mu.Unlock()
	for _, c := range pool.idle {
		c.parked -= by
	}
}

// idle returns how many connections wait.
func idle(e *Endpoint) int {
	e.client.h1.mu.Lock()
	defer e.client.h1.mu.Unlock()
	return len(e.client.h1.idle)
}

// TestReuse: after which answers a connection carries the next request.
func TestReuse(t *testing.T) {
	tests := map[string]struct {
		method string
		answer string
		body   string
		reused bool
	}{
		"length":                  {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", true},
		"chunks":                  {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi", true},
		"chunks and trailers":     {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\na: b\r\n\r\n", "hi", true},
		"HEAD":                    {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "", true},
		"HEAD of chunks":          {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", true},
		"204":                     {"GET", "HTTP/1.1 204 No Content\r\n\r\n", "", true},
		"304 with a length":       {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", true},
		"close":                   {"GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", "hi", false},
		"HTTP/1.0":                {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", false},
		"HTTP/1.0, kept":          {"GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", "hi", true},
		"bytes behind the answer": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" + evil, "hi", false},
		"body behind 204":         {"GET", "HTTP/1.1 204 No Content\r\n\r\n" + evil, "", false},
		"body behind HEAD":        {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			closed := make(chan int, 2)
			e := first(single(t, cluster(peers(t, func(p *peer) {
				for {
					r, _, ok := p.request()
					if !ok {
						closed <- p.number
						return
					}
					if r.Header.Get("X-Second") != "" {
						p.ok(fmt.Sprint("second on ", p.number))
					} else {
						p.say(tt.answer)
					}
				}
			}))))
			if got := fetch(t, e, tt.method, exchange.NoBody); got.fault != nil || got.body != tt.body {
				t.Fatalf("got %v", got)
			}
			want := 1
			if !tt.reused {
				want = 2
				receive(t, closed, "closing the first connection")
			}
			if got := fetch(t, e, "GET", exchange.NoBody, "X-Second", "1"); got.body != fmt.Sprint("second on ", want) {
				t.Errorf("got %v, want connection %d", got, want)
			}
		})
	}
}

// TestUntilClose: a body that the end of the connection ends.
func TestUntilClose(t *testing.T) {
	e := first(single(t, cluster(peers(t, func(p *peer) {
		_, _, _ = p.request()
		p.say("HTTP/1.1 200 OK\r\n\r\nall of it")
	}))))
	for range 2 {
		if got := fetch(t, e, "GET", exchange.NoBody); got.fault != nil || got.body != "all of it" {
			t.Fatalf("got %v", got)
		}
	}
	if n := e.client.h1.open.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

// evil is an answer that nobody asked for.
const (
	evil       = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	evilChunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"
	evilEmpty  = "HTTP/1.1 204 No Content\r\nX-Evil: 1\r\n\r\n"
)

// TestUnsolicitedAnswer: what an endpoint sends between requests is never the answer to the next one.
func TestUnsolicitedAnswer(t *testing.T) {
	serve := func(unasked string, early, sent chan struct{}) func(p *peer) {
		return func(p *peer) {
			for {
				r, _, ok := p.request()
				if !ok {
					return
				}
				if r.Method == "HEAD" {
					p.say("HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n")
				} else {
					p.ok("true")
				}
				if p.number == 1 && r.Header.Get("X-Second") == "" {
					<-early
					p.say(unasked)
					sent <- struct{}{}
				}
			}
		}
	}
	tests := map[string]struct {
		method  string
		unasked string
		passes  bool // time does
	}{
		"after a while":    {"GET", evil, true},
		"the body of HEAD": {"HEAD", evil, false},
		"chunks":           {"GET", evilChunks, true},
		"no body":          {"GET", evilEmpty, true},
		"half a head":      {"GET", "HTTP/1.1 200 OK\r\n", true},
		"a line end":       {"GET", "\r\n", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			early, sent := make(chan struct{}), make(chan struct{}, 1)
			e := first(single(t, cluster(peers(t, serve(tt.unasked, early, sent)))))
			if got := fetch(t, e, tt.method, exchange.NoBody); got.fault != nil {
				t.Fatalf("got %v", got)
			}
			early <- struct{}{}
			receive(t, sent, "sending what nobody asked for")
			if tt.passes {
				passTime(e, lookAfter)
			}
			got := fetch(t, e, "POST", exchange.Bytes([]byte("x")), "X-Second", "1")
			switch {
			case strings.Contains(got.body, "evil") || got.status == 204:
				t.Errorf("the answer is another's: %v", got)
			case got.body != "true":
				t.Errorf("got %v", got)
			}
			if got := fetch(t, e, "GET", exchange.NoBody, "X-Second", "1"); got.body != "true" {
				t.Errorf("the third request got %v", got)
			}
		})
	}
}

// TestTwoAnswers: of two answers to one request on a connection that was not looked at, neither is believed.
func TestTwoAnswers(t *testing.T) {
	const good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"
	for name, answers := range map[string]string{"length": evil + good, "chunks": evilChunks + good, "no body": evilEmpty + good} {
		t.Run(name, func(t *testing.T) {
			e := first(single(t, cluster(peers(t, func(p *peer) {
				for n := 0; ; n++ {
					if _, _, ok := p.request(); !ok {
						return
					}
					if n == 1 {
						p.say(answers)
					} else {
						p.say(good)
					}
				}
			}))))
			if got := fetch(t, e, "GET", exchange.NoBody); got.body != "true" {
				t.Fatal(got)
			}
			passTime(e, -time.Hour) // as if it had been used just now, however slow this machine is
			got := fetch(t, e, "GET", exchange.NoBody)
			if got.body != "" || got.fault == nil || got.fault.Kind != exchange.UpstreamProtocol || got.fault.Retryable {
				t.Errorf("got %v", got)
			}
			if got := fetch(t, e, "GET", exchange.NoBody); got.body != "true" {
				t.Errorf("the next request got %v", got)
			}
		})
	}
}

// TestClosedWhileIdle: the next request goes to a new connection, whatever its method.
func TestClosedWhileIdle(t *testing.T) {
	for name, end := range map[string]func(c *net.TCPConn){
		"close":      func(c *net.TCPConn) { _ = c.Close() },
		"half-close": func(c *net.TCPConn) { _ = c.CloseWrite() },
		"reset":      func(c *net.TCPConn) { _, _ = c.SetLinger(0), c.Close() },
	} {
		for _, watched := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, watched %t", name, watched), func(t *testing.T) {
				end1, ended := make(chan struct{}), make(chan struct{})
				e := first(single(t, cluster(peers(t, func(p *peer) {
					for {
						if _, _, ok := p.request(); !ok {
							return
						}
						p.ok(fmt.Sprint(p.number))
						if p.number == 1 {
							<-end1
							end(p.Conn.(*net.TCPConn))
							close(ended)
						}
					}
				}))))
				if !watched { // as if the watcher were late: the look is what finds out
					unwatched(t, e)
				}
				if got := fetch(t, e, "POST", exchange.Bytes([]byte("x"))); got.body != "1" {
					t.Fatalf("got %v", got)
				}
				close(end1)
				receive(t, ended, "the end of the connection")
				if watched {
					await(t, "giving up the connection", func() bool { return idle(e) == 0 })
				} else {
					passTime(e, lookAfter)
				}
				if got := fetch(t, e, "POST", exchange.Bytes([]byte("x"))); got.body != "2" {
					t.Errorf("got %v", got)
				}
			})
		}
	}
}

// await waits for a state that nothing signals.
func await(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !reached(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it did not happen", what)
		}
	}
}

// TestClosedWithRequestUnderWay: an endpoint that closes a kept connection when the next request is on its way may have processed it. Only
// what may be done twice is sent again, and once.
func TestClosedWithRequestUnderWay(t *testing.T) {
	tests := map[string]struct {
		method string
		body   string
		again  bool
	}{
		"GET":               {"GET", "", true},
		"HEAD":              {"HEAD", "", true},
		"OPTIONS":           {"OPTIONS", "", true},
		"POST":              {"POST", "x", false},
		"POST without body": {"POST", "", false},
		"DELETE":            {"DELETE", "", false},
		"GET with a body":   {"GET", "x", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var seconds atomic.Int32
			e := first(single(t, cluster(peers(t, func(p *peer) {
				for {
					r, _, ok := p.request()
					if !ok {
						return
					}
					if r.Header.Get("X-Second") != "" {
						seconds.Add(1)
						if p.number == 1 {
							return
						}
					}
					p.say("HTTP/1.1 204 No Content\r\n\r\n")
				}
			}))))
			if got := fetch(t, e, "GET", exchange.NoBody); got.fault != nil {
				t.Fatal(got)
			}
			body := exchange.NoBody
			if tt.body != "" {
				body = exchange.Bytes([]byte(tt.body))
			}
			got := fetch(t, e, tt.method, body, "X-Second", "1")
			want := int32(1)
			if tt.again {
				want = 2
			}
			if seconds.Load() != want {
				t.Errorf("the request was sent %d times, want %d", seconds.Load(), want)
			}
			if tt.again != (got.fault == nil) || got.fault != nil && (got.fault.Kind != exchange.UpstreamReset || got.fault.Retryable) {
				t.Errorf("got %v", got)
			}
		})
	}
}

// TestRetryableOnKeptConnection: of a body that waits nothing went out, so that the request can be sent again by who asked.
func TestRetryableOnKeptConnection(t *testing.T) {
	e := first(single(t, cluster(peers(t, func(p *peer) {
		if _, _, ok := p.request(); !ok {
			return
		}
		p.ok("")
		for line := ""; line != "\r\n"; {
			var err error
			if line, err = p.in.ReadString('\n'); err != nil {
				return
			}
		}
	}))))
	if got := fetch(t, e, "GET", exchange.NoBody); got.fault != nil {
		t.Fatal(got)
	}
	got := fetch(t, e, "POST", exchange.Bytes([]byte("x")), "Expect", "100-continue")
	if got.fault == nil || got.fault.Kind != exchange.UpstreamReset || !got.fault.Retryable {
		t.Errorf("got %v", got)
	}
}

// TestPool: the connection used last is used first; those over the bound and those that waited too long go.
func TestPool(t *testing.T) {
	const most = 5
	let := make(chan struct{})
	var waiting sync.WaitGroup
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for {
			r, _, ok := p.request()
			if !ok {
				return
			}
			if r.Header.Get("X-Wait") != "" {
				waiting.Done()
				<-let
			}
			p.ok(fmt.Sprint(p.number))
		}
	}))))
	var all sync.WaitGroup
	waiting.Add(most)
	for range most {
		all.Go(func() {
			if got := fetch(t, e, "GET", exchange.NoBody, "X-Wait", "1"); got.fault != nil {
				t.Error(got)
			}
		})
	}
	waiting.Wait()
	close(let)
	all.Wait()
	if idle(e) != most {
		t.Fatalf("%d connections wait, want %d", idle(e), most)
	}
	last := fetch(t, e, "GET", exchange.NoBody)
	for range 3 {
		if got := fetch(t, e, "GET", exchange.NoBody); got != last {
			t.Errorf("got %v, want connection %s again", got, last.body)
		}
	}
	pool := e.client.h1
	passTime(e, IdleTimeout-patience)
	pool.tick()
	if idle(e) != most {
		t.Errorf("%d connections are left before their time", idle(e))
	}
	if got := fetch(t, e, "GET", exchange.NoBody); got != last {
		t.Errorf("got %v", got)
	}
	passTime(e, patience)
	pool.tick()
	if idle(e) != 1 || pool.open.Load() != 1 {
		t.Errorf("%d connections are left of the old ones, %d are open", idle(e), pool.open.Load())
	}
	pool.retire()
	if idle(e) != 0 || pool.open.Load() != 0 {
		t.Errorf("%d connections are left, %d are open", idle(e), pool.open.Load())
	}
	if got := fetch(t, e, "GET", exchange.NoBody); got.fault != nil || idle(e) != 0 {
		t.Errorf("got %v, %d connections are kept", got, idle(e))
	}
}

// TestInterim: interim responses are passed on in their order, 100 is not.
func TestInterim(t *testing.T) {
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for {
			if _, _, ok := p.request(); !ok {
				return
			}
			p.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: 1\r\n\r\n")
			p.say("HTTP/1.1 103 Early Hints\r\nA: 2\r\nB: 3\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nC: 4\r\n\r\nhi")
		}
	}))))
	for range 2 {
		var got []string
		a, fault := roundTrip(t.Context(), e, &Attempt{
			Request: request(t, "GET", "/"), Body: exchange.NoBody,
			Inform: informed(func(status int, fields exchange.Fields) { got = append(got, fmt.Sprint(status, fields)) }),
		})
		if fault != nil {
			t.Fatal(fault)
		}
		if want := []string{"102 [{A 1 }]", "103 [{A 2 } {B 3 }]"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if c, _ := a.Response.Fields.Lookup("C"); c != "4" || len(a.Response.Fields) != 2 {
			t.Errorf("fields %v", a.Response.Fields)
		}
		if body := drain(t, a); body != "hi" {
			t.Errorf("body %q", body)
		}
	}
	if n := e.client.h1.open.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// conns returns the connections of an endpoint that wait.
func conns(e *Endpoint) []*conn {
	e.client.h1.mu.Lock()
	defer e.client.h1.mu.Unlock()
	return slices.Clone(e.client.h1.idle)
}

// TestMissedHangUp: a hang-up that comes just before the wait for an answer brings no event to who waits. The watcher's word ends that
// wait; one that it ends without need goes on.
func TestMissedHangUp(t *testing.T) {
	tests := map[string]struct {
		answers bool // the endpoint answers the second request, late
		want    string
	}{
		"hung up":     {false, "2"},
		"answers yet": {true, "1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			closing, asked, let := make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
			e := first(single(t, cluster(peers(t, func(p *peer) {
				for n := 0; ; n++ {
					if _, _, ok := p.request(); !ok {
						return
					}
					if p.number == 1 && n == 1 {
						asked <- struct{}{}
						<-let
						if !tt.answers {
							p.gone()
							return
						}
					}
					p.ok(fmt.Sprint(p.number))
					if p.number == 1 && n == 0 && !tt.answers {
						_ = p.Conn.(*net.TCPConn).CloseWrite()
						close(closing)
					}
				}
			}))))
			unwatched(t, e)
			if got := fetch(t, e, "GET", exchange.NoBody); got.body != "1" {
				t.Fatal(got)
			}
			if !tt.answers {
				receive(t, closing, "half-closing")
			}
			passTime(e, -time.Hour) // as if it had been used just now: no look finds out
			c := conns(e)[0]
			got := make(chan fetched)
			go func() { got <- fetch(t, e, "GET", exchange.NoBody) }()
			receive(t, asked, "the second request")
			c.hungUp()
			close(let)
			if got := receive(t, got, "the answer"); got.body != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

// unwatched makes an endpoint's connections such that nobody tells when their peer hangs up.
func unwatched(t *testing.T, e *Endpoint) {
	u := e.client.h1.dialer.upkeep
	u.watcher()
	u.mu.Lock()
	defer u.mu.Unlock()
	w := u.hangups
	u.hangups = nil
	t.Cleanup(func() { _ = w.Close() })
}

// FuzzAnswer has an endpoint answer a request with anything. The exchange ends, and the next one gets an answer of its own, be the
// connection kept or not.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"", "H", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\n\r\nhi", "HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\na: b\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" + evil, "HTTP/1.1 204 No Content\r\n\r\n" + evil,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
		"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.0 200 OK\nContent-Length: 1\n\nx",
	} {
		f.Add([]byte(seed), false, false, false)
		f.Add([]byte(seed), true, true, false)
		f.Add([]byte(seed), false, false, true)
	}
	f.Fuzz(func(t *testing.T, answer []byte, head, upgrade, keep bool) {
		const own = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown"
		e := first(single(t, cluster(peers(t, func(p *peer) {
			if p.number == 1 {
				_, _, _ = p.request()
				_, _ = p.Write(answer)
				if !keep {
					return
				}
			}
			for {
				if _, _, ok := p.request(); !ok {
					return
				}
				p.say(own)
			}
		}))))
		a := &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody}
		if head {
			a.Request.Method = "HEAD"
		}
		if upgrade {
			a.Request.Protocol = "websocket"
		}
		ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond) // what an endpoint that keeps the connection never finishes
		defer stop()
		if got, fault := roundTrip(ctx, e, a); fault == nil {
			_, _ = io.Copy(io.Discard, got.Body)
			_ = got.Body.Close()
		}
		passTime(e, lookAfter)
		if got := fetch(t, e, "GET", exchange.NoBody); got.body != "own" {
			t.Errorf("the next request got %v", got)
		}
	})
}
