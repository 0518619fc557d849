package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// fed is a body that comes as the test feeds it. Its length is unknown unless size is set.
type fed struct {
	parts chan []byte // closed: the end
	err   error       // in place of a proper end
	size  int64
	rest  []byte
}

func (f *fed) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		part, ok := <-f.parts
		if !ok && f.err != nil {
			return 0, f.err
		}
		if !ok {
			return 0, io.EOF
		}
		f.rest = part
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *fed) Close() error { return nil }

func (f *fed) Length() int64 {
	if f.size > 0 {
		return f.size
	}
	return -1
}

func (f *fed) Trailers() exchange.Fields { return nil }

// partly is a body of which a part lies in memory.
type partly struct {
	ready []byte
	*fed
}

func (p *partly) Ready() (int, bool) { return len(p.ready), false }

func (p *partly) Read(b []byte) (int, error) {
	if len(p.ready) > 0 {
		n := copy(b, p.ready)
		p.ready = p.ready[n:]
		return n, nil
	}
	return p.fed.Read(b)
}

// TestRequestBodies: what reaches the endpoint is the body, however it comes, and the connection carries the next request.
func TestRequestBodies(t *testing.T) {
	feed := func(size int64, parts ...string) *fed {
		f := &fed{parts: make(chan []byte, len(parts)), size: size}
		for _, p := range parts {
			f.parts <- []byte(p)
		}
		close(f.parts)
		return f
	}
	long := strings.Repeat("0123456789abcdef", 20<<10)
	tests := map[string]struct {
		body func() exchange.Body
		want string
	}{
		"in memory":              {func() exchange.Body { return exchange.Bytes([]byte("abc")) }, "abc"},
		"in memory, long":        {func() exchange.Body { return exchange.Bytes([]byte(long)) }, long},
		"in memory, chunks":      {func() exchange.Body { return &unmeasured{exchange.Bytes([]byte("abc")).(exchange.Ready)} }, "abc"},
		"in memory, long chunks": {func() exchange.Body { return &unmeasured{exchange.Bytes([]byte(long)).(exchange.Ready)} }, long},
		"empty chunks":           {func() exchange.Body { return &unmeasured{exchange.Bytes(nil).(exchange.Ready)} }, ""},
		"to come":                {func() exchange.Body { return feed(6, "abc", "d", "ef") }, "abcdef"},
		"to come, chunks":        {func() exchange.Body { return feed(0, "abc", "d", "ef") }, "abcdef"},
		"to come, long chunks":   {func() exchange.Body { return feed(0, long, "d", long) }, long + "d" + long},
		"partly in memory":       {func() exchange.Body { return &partly{[]byte("abc"), feed(6, "def")} }, "abcdef"},
		"partly, chunks":         {func() exchange.Body { return &partly{[]byte("abc"), feed(0, "def")} }, "abcdef"},
		"longer than its length": {func() exchange.Body { return feed(4, "abcdef") }, "abcd"},
	}
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for {
			_, body, ok := p.request()
			if !ok {
				return
			}
			p.ok(fmt.Sprint(p.number, body))
		}
	}))))
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				if got := fetch(t, e, "POST", tt.body()); got.fault != nil || got.body != fmt.Sprint(1, tt.want) {
					t.Errorf("got %d bytes, %v", len(got.body), got.fault)
				}
			}
		})
	}
}

// unmeasured is a body in memory that does not say how long it is.
type unmeasured struct{ exchange.Ready }

func (unmeasured) Length() int64 { return -1 }

// TestShortBody: a body that ends before its length is the client's fault, and no whole request.
func TestShortBody(t *testing.T) {
	for name, body := range map[string]func() exchange.Body{
		"in memory": func() exchange.Body { return &again{data: []byte("abc"), rest: []byte("abc"), length: 9} },
		"ready":     func() exchange.Body { return &againReady{again{rest: []byte("abc"), length: 9}} },
	} {
		t.Run(name, func(t *testing.T) {
			whole := make(chan bool, 1)
			e := first(single(t, cluster(peers(t, func(p *peer) {
				_, _, ok := p.request()
				whole <- ok
			}))))
			got := fetch(t, e, "POST", body())
			if got.fault == nil || got.fault.Origin != exchange.SideClient || got.fault.Retryable {
				t.Errorf("got %v", got)
			}
			if receive(t, whole, "the endpoint's end of the body") {
				t.Error("the endpoint took the body for whole")
			}
			if n := e.client.h1.open.Load(); n != 0 {
				t.Errorf("%d connections are open", n)
			}
		})
	}
}

// TestExpectContinue: a body that waits goes out on the endpoint's word, or after a while without it, and not at all after a final answer.
func TestExpectContinue(t *testing.T) {
	head := func(p *peer) (fields string) {
		for {
			line, err := p.in.ReadString('\n')
			if fields += line; err != nil || line == "\r\n" {
				return fields
			}
		}
	}
	body := func(p *peer) string {
		got := make([]byte, 4)
		_, _ = io.ReadFull(p.in, got)
		return string(got)
	}
	tests := map[string]struct {
		script func(t *testing.T, p *peer)
		status int
		kept   int
	}{
		"continue": {func(t *testing.T, p *peer) {
			if fields := head(p); !strings.Contains(fields, "\r\nExpect: 100-continue\r\n") || p.in.Buffered() > 0 {
				t.Errorf("got %q and %d bytes", fields, p.in.Buffered())
			}
			p.say("HTTP/1.1 100 Continue\r\n\r\n")
			p.ok(body(p))
			p.gone()
		}, 200, 1},
		"interim first": {func(t *testing.T, p *peer) {
			head(p)
			p.say("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
			p.ok(body(p))
			p.gone()
		}, 200, 1},
		"no word": {func(t *testing.T, p *peer) {
			began := time.Now()
			head(p)
			got := body(p)
			if waited := time.Since(began); waited < ContinueTimeout-100*time.Millisecond {
				t.Errorf("the body waited %v", waited)
			}
			p.ok(got)
			p.gone()
		}, 200, 1},
		"refused": {func(t *testing.T, p *peer) {
			head(p)
			p.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nbody")
			if rest := p.gone(); rest != "" {
				t.Errorf("the endpoint got %q", rest)
			}
		}, 413, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := first(single(t, cluster(peers(t, func(p *peer) { tt.script(t, p) }))))
			began := time.Now()
			got := fetch(t, e, "POST", exchange.Bytes([]byte("body")), "Expect", "100-Continue")
			if name != "no word" && time.Since(began) >= ContinueTimeout {
				t.Errorf("the exchange took %v, as if the body had waited to the end", time.Since(began))
			}
			if got.fault != nil || got.status != tt.status || got.body != "body" {
				t.Errorf("got %v", got)
			}
			if idle(e) != tt.kept {
				t.Errorf("%d connections are kept, want %d", idle(e), tt.kept)
			}
		})
	}
}

// TestEarlyAnswer: an answer that comes before the request's body is sent is passed on. The connection carries another request only
// when the body was sent to its end after all.
func TestEarlyAnswer(t *testing.T) {
	tests := map[string]struct {
		closes bool  // the endpoint does
		end    error // of the body
		kept   int
	}{
		"the body ends":                 {false, nil, 1},
		"the body is given up":          {false, io.ErrUnexpectedEOF, 0},
		"the endpoint closes":           {true, nil, 0},
		"the endpoint closes, given up": {true, io.ErrUnexpectedEOF, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := first(single(t, cluster(peers(t, func(p *peer) {
				for line := ""; line != "\r\n"; line, _ = p.in.ReadString('\n') {
				}
				p.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
				if !tt.closes {
					p.gone()
				}
			}))))
			source := &fed{parts: make(chan []byte), err: tt.end}
			a := &Attempt{Request: request(t, "POST", "/"), Body: source}
			answer, fault := roundTrip(t.Context(), e, a)
			if fault != nil {
				t.Fatal(fault)
			}
			text, err := io.ReadAll(answer.Body)
			if answer.Response.Status != 403 || string(text) != "no" || err != nil {
				t.Errorf("got %d %q, %v", answer.Response.Status, text, err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = answer.Body.Close()
			}()
			close(source.parts)
			receive(t, ended, "the end of the attempt")
			if tt.closes {
				await(t, "closing the connection", func() bool { return e.client.h1.open.Load() == 0 })
			}
			if idle(e) != tt.kept {
				t.Errorf("%d connections are kept, want %d", idle(e), tt.kept)
			}
		})
	}
}

// TestClientStopsAfterAnswer: a client that stops sending because it is refused gets the refusal whole, and the endpoint learns that
// nothing follows.
func TestClientStopsAfterAnswer(t *testing.T) {
	told := make(chan string, 1)
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for line := ""; line != "\r\n"; line, _ = p.in.ReadString('\n') {
		}
		p.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nfirst")
		told <- p.gone()
		p.say("-last")
	}))))
	source := &fed{parts: make(chan []byte), err: io.ErrUnexpectedEOF}
	answer, fault := roundTrip(t.Context(), e, &Attempt{Request: request(t, "POST", "/"), Body: source})
	if fault != nil {
		t.Fatal(fault)
	}
	source.parts <- []byte("abc")
	close(source.parts)
	if rest := receive(t, told, "the end of the request"); rest != "3\r\nabc\r\n" {
		t.Errorf("the endpoint got %q", rest)
	}
	if got := drain(t, answer); got != "first-last" {
		t.Errorf("got %q", got)
	}
	if n := e.client.h1.open.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

// TestEarlyAnswerWhileBlocked: End does not wait for an endpoint that takes no more of a body.
func TestEarlyAnswerWhileBlocked(t *testing.T) {
	let := make(chan struct{})
	e := first(single(t, cluster(peers(t, func(p *peer) {
		_, _ = p.in.ReadString('\n')
		p.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		<-let
	}))))
	defer close(let)
	got := fetch(t, e, "POST", exchange.Bytes(make([]byte, 64<<20)))
	if got.fault != nil || got.status != 403 || got.body != "no" {
		t.Errorf("got %v", got)
	}
	if n := e.client.h1.open.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

// TestFullDuplex: an answer may begin before the body ends, and both go on.
func TestFullDuplex(t *testing.T) {
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for line := ""; line != "\r\n"; line, _ = p.in.ReadString('\n') {
		}
		p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			size, err := p.in.ReadString('\n')
			if err != nil {
				return
			}
			data, err := p.in.ReadString('\n')
			if err != nil {
				return
			}
			p.say(size + data)
			if size == "0\r\n" {
				p.gone()
				return
			}
		}
	}))))
	source := &fed{parts: make(chan []byte)}
	answer, fault := roundTrip(t.Context(), e, &Attempt{Request: request(t, "POST", "/"), Body: source})
	if fault != nil {
		t.Fatal(fault)
	}
	buf := make([]byte, 100)
	for i := range 20 {
		want := fmt.Sprintf("message %d", i)
		source.parts <- []byte(want)
		if n, err := answer.Body.Read(buf); string(buf[:n]) != want || err != nil {
			t.Fatalf("got %q, %v", buf[:n], err)
		}
	}
	close(source.parts)
	if rest := drain(t, answer); rest != "" {
		t.Errorf("got %q", rest)
	}
	if idle(e) != 1 {
		t.Error("the connection is not kept")
	}
}

// TestLifeEnds: wherever an attempt waits, its life's end interrupts it, with the cause as the fault.
func TestLifeEnds(t *testing.T) {
	timeout := exchange.NewFault(exchange.UpstreamTimeout, nil)
	here := make(chan struct{}, 1)
	hold := func(t *testing.T) { <-t.Context().Done() }
	tests := map[string]struct {
		script func(t *testing.T, p *peer)
		body   exchange.Body
		tls    bool
	}{
		"TLS handshake": {func(t *testing.T, p *peer) { _, _ = p.Read(make([]byte, 1)); here <- struct{}{}; hold(t) }, exchange.NoBody, true},
		"head":          {func(t *testing.T, p *peer) { _, _, _ = p.request(); here <- struct{}{}; hold(t) }, exchange.NoBody, false},
		"half a head": {func(t *testing.T, p *peer) {
			_, _, _ = p.request()
			p.say("HTTP/1.1 200 OK\r\nA: b")
			here <- struct{}{}
			hold(t)
		}, exchange.NoBody, false},
		"100": {func(t *testing.T, p *peer) { _, _ = p.in.ReadString('\n'); here <- struct{}{}; hold(t) }, exchange.Bytes([]byte("x")), false},
		"body": {func(t *testing.T, p *peer) {
			_, _, _ = p.request()
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
			here <- struct{}{}
			hold(t)
		}, exchange.NoBody, false},
		"sending": {func(t *testing.T, p *peer) { _, _ = p.in.ReadString('\n'); here <- struct{}{}; hold(t) },
			exchange.Bytes(make([]byte, 64<<20)), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			conf := cluster(peers(t, func(p *peer) {
				tt.script(t, p)
			}))
			defer stop()
			if tt.tls {
				conf.TLS = &config.UpstreamTLS{ServerName: "b.test"}
			}
			e := first(single(t, conf))
			var fields []string
			if name == "100" {
				fields = []string{"Expect", "100-continue"}
			}
			a := &Attempt{Request: request(t, "POST", "/", fields...), Body: tt.body}
			a.Life = a.Life.Fresh()
			go func() {
				select {
				case <-here:
					a.Life.End(timeout)
				case <-ctx.Done():
				}
			}()
			fault := e.RoundTrip(a)
			if fault == nil {
				_, err := io.ReadAll(a.Answer)
				fault, _ = errors.AsType[*exchange.Fault](err)
			}
			if fault != timeout {
				t.Errorf("got %v", fault)
			}
			a.End()
			if n := e.client.h1.open.Load(); n != 0 {
				t.Errorf("%d connections are open", n)
			}
			if fault := e.RoundTrip(a); fault != timeout {
				t.Errorf("an attempt whose life is over got %v", fault)
			}
		})
	}
}

// TestLifeOverBeforehand: an attempt that is over takes no connection with it.
func TestLifeOverBeforehand(t *testing.T) {
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for {
			if _, _, ok := p.request(); !ok {
				return
			}
			p.ok("")
		}
	}))))
	if got := fetch(t, e, "GET", exchange.NoBody); got.fault != nil {
		t.Fatal(got)
	}
	a := &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody, Life: &exchange.Life{}}
	a.Life.End(nil)
	if fault := e.RoundTrip(a); fault == nil || fault.Kind != exchange.ClientAborted {
		t.Errorf("got %v", fault)
	}
	a.End()
	if idle(e) != 1 {
		t.Error("the kept connection is gone")
	}
}

// TestLifeOverAfterwards: a connection that was interrupted carries no other request, whole as its answer may be.
func TestLifeOverAfterwards(t *testing.T) {
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for {
			if _, _, ok := p.request(); !ok {
				return
			}
			p.ok("whole")
		}
	}))))
	a := &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody}
	if fault := e.RoundTrip(a); fault != nil {
		t.Fatal(fault)
	}
	if text, err := io.ReadAll(a.Answer); string(text) != "whole" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	a.Life.End(exchange.NewFault(exchange.UpstreamTimeout, nil))
	a.End()
	if n := e.client.h1.open.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

// TestDetachedBody: a released attempt reads no more of its body, and another attempt sends the whole.
func TestDetachedBody(t *testing.T) {
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for {
			if p.number == 1 {
				for line := ""; line != "\r\n"; line, _ = p.in.ReadString('\n') {
				}
				p.say("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
				p.gone()
				return
			}
			_, body, ok := p.request()
			if !ok {
				return
			}
			p.ok(body)
		}
	}))))
	source := exchange.Bytes([]byte("the body"))
	a := &Attempt{Request: request(t, "POST", "/", "Expect", "100-continue"), Body: source, Life: &exchange.Life{}}
	if fault := e.RoundTrip(a); fault != nil || a.Response.Status != 503 {
		t.Fatal(a.Response.Status, fault)
	}
	if !a.Detach() {
		t.Fatal("refused")
	}
	a.End()
	a.Reset()
	a.Request, a.Body = request(t, "POST", "/"), source
	if fault := e.RoundTrip(a); fault != nil {
		t.Fatal(fault)
	}
	if text, err := io.ReadAll(a.Answer); string(text) != "the body" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	a.End()
}

// TestNeverAnothersAnswer: many exchanges at once with an endpoint that ends connections in every way it can think of. Whatever answer a
// request gets is its own, and all that can be sent again succeeds.
func TestNeverAnothersAnswer(t *testing.T) {
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for n := p.number; ; n++ {
			r, body, ok := p.request()
			if !ok {
				return
			}
			id := r.Header.Get("X-Id") + body
			switch n % 7 {
			case 0:
				p.ok(id)
				return
			case 1:
				p.ok(id)
				_ = p.Conn.(*net.TCPConn).CloseWrite()
				p.gone()
				return
			case 2:
				p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(id), id))
				return
			case 3:
				p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				p.say(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(id), id))
			default:
				p.ok(id)
			}
		}
	}))))
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 100 {
				id := fmt.Sprintf("%d-%d.", worker, i)
				body, method := exchange.NoBody, "GET"
				if i%3 == 0 {
					body, method = exchange.Bytes(bytes.Repeat([]byte("b"), i*100)), "PUT"
				}
				got := fetch(t, e, method, body, "X-Id", id)
				switch {
				case got.fault != nil && (method == "GET" || got.fault.Kind != exchange.UpstreamReset):
					t.Errorf("%s: %v", id, got.fault)
				case got.fault == nil && (!strings.HasPrefix(got.body, id) || strings.Trim(got.body[len(id):], "b") != ""):
					t.Errorf("%s got %.20q", id, got.body)
				}
			}
		})
	}
	all.Wait()
}

// TestTLSConnections: over TLS too connections are kept, sessions resumed, and answers that nobody asked for found.
func TestTLSConnections(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t)
			server := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "b.test", "", nil)}, MaxVersion: version}
			early, sent := make(chan struct{}), make(chan struct{}, 1)
			conf := cluster(peers(t, func(p *peer) {
				secure := tls.Server(p.Conn, server)
				p.Conn = secure
				p.in.Reset(secure)
				for {
					r, body, ok := p.request()
					if !ok {
						return
					}
					p.ok(fmt.Sprint(p.number, " ", secure.ConnectionState().DidResume, " ", body))
					if r.Header.Get("X-Evil") != "" {
						<-early
						p.say(evil)
						sent <- struct{}{}
					}
				}
			}))
			conf.TLS = &config.UpstreamTLS{ServerName: "b.test", CAs: ca.pem}
			e := first(single(t, conf))
			step := func(want string, fields ...string) {
				t.Helper()
				if got := fetch(t, e, "POST", exchange.Bytes([]byte("x")), fields...); got.body != want {
					t.Fatalf("got %v, want %q", got, want)
				}
			}
			step("1 false x")
			step("1 false x")
			passTime(e, lookAfter) // session tickets are nothing unasked
			step("1 false x", "X-Evil", "1")
			early <- struct{}{}
			receive(t, sent, "sending what nobody asked for")
			passTime(e, lookAfter)
			step("2 true x")
			step("2 true x")
		})
	}
}
