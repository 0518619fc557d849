package downstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// soon is a limit that a test waits for.
const soon = 200 * time.Millisecond

func TestH1Timeouts(t *testing.T) {
	const host = "Host: x\r\n"
	tests := map[string]struct {
		limits Limits
		sent   string
		want   int // 0: the connection ends without an answer
	}{
		"nothing comes":         {Limits{IdleTimeout: soon}, "", 0},
		"half a head":           {Limits{HeaderTimeout: soon}, "GET / HTTP/1.1\r\nHo", 408},
		"half a request line":   {Limits{HeaderTimeout: soon}, "P", 408},
		"half a body":           {Limits{BodyIdleTimeout: soon}, "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhe", 408},
		"no body":               {Limits{BodyIdleTimeout: soon}, "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\n", 408},
		"half a chunk":          {Limits{BodyIdleTimeout: soon}, "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhe", 408},
		"nothing after request": {Limits{IdleTimeout: soon}, get, 200},
	}
	each(t, func(t *testing.T, secure bool) {
		for name, tc := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := build(t, houseOptions{secure: secure, handler: serve(echo), limits: tc.limits})
				v := h.visit(t)
				began := time.Now()
				v.say(tc.sent)
				if tc.want != 0 {
					if got := v.hear("GET"); got.StatusCode != tc.want {
						t.Errorf("got %d, want %d", got.StatusCode, tc.want)
					}
				}
				v.wantEnd()
				if took := time.Since(began); took < soon {
					t.Errorf("it took %v with a limit of %v", took, soon)
				}
			})
		}
	})
}

// A limit is for one wait: a client that keeps coming, and with a body faster than a trickle, may take as long as it likes.
func TestH1LimitsBeginAnew(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		const limit = 500 * time.Millisecond
		h := build(t, houseOptions{secure: secure, handler: serve(echo), limits: Limits{BodyIdleTimeout: limit, IdleTimeout: limit, HeaderTimeout: limit}})
		v := h.visit(t)
		pace := time.NewTicker(limit / 5)
		defer pace.Stop()
		for range 8 {
			v.say(get)
			v.hear("GET")
			<-pace.C
		}
		v.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8192\r\n\r\n")
		for range 8 {
			<-pace.C
			v.say(strings.Repeat("b", leastProgress))
		}
		if got := v.hear("POST"); got.StatusCode != 200 {
			t.Errorf("got %d %q", got.StatusCode, got.body)
		}
	})
}

func TestH1HandshakeTimeout(t *testing.T) {
	h := build(t, houseOptions{secure: true, handler: serve(echo), limits: Limits{HandshakeTimeout: 4 * soon}})
	for name, sent := range map[string]string{"nothing": "", "half a hello": "\x16\x03\x01\x02"} {
		conn, err := net.Dial("tcp", h.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, sent)
		if _, err := io.ReadAll(conn); isTimeout(err) {
			t.Errorf("%s: the connection is kept: %v", name, err)
		}
	}
	v := h.visit(t)
	v.say(get)
	if got := v.hear("GET"); got.StatusCode != 200 {
		t.Errorf("a good handshake after it: got %d", got.StatusCode)
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// A client that takes no bytes is cut, and its exchange ends.
func TestH1SlowReader(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		ended := make(chan error, 1)
		h := build(t, houseOptions{secure: secure, limits: Limits{BodyIdleTimeout: soon}, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, -1)
			part := make([]byte, 32<<10)
			for {
				if _, err := w.Write(part); err != nil {
					<-x.Life.Done()
					ended <- x.Life.Fault()
					return
				}
			}
		})})
		v := h.visit(t)
		v.say(get)
		err := <-ended
		if fault, ok := errors.AsType[*exchange.Fault](err); !ok || fault.Kind != exchange.ClientAborted {
			t.Errorf("the exchange ended with %v", err)
		}
	})
}

// The exchange ends when the client goes away, be it by closing or by half-closing; over TLS as well.
func TestH1ClientGoes(t *testing.T) {
	ways := map[string]func(v *visitor){
		"close":      func(v *visitor) { _ = v.tcp.Close() },
		"half-close": func(v *visitor) { _ = v.tcp.CloseWrite() },
		"reset":      func(v *visitor) { _, _ = v.tcp.SetLinger(0), v.tcp.Close() },
	}
	requests := map[string]string{
		"no body":       get,
		"whole body":    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
		"body to come":  "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\nhi",
		"second in row": get + get,
	}
	each(t, func(t *testing.T, secure bool) {
		reached, ended := make(chan struct{}), make(chan *exchange.Fault)
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			reached <- struct{}{}
			<-x.Life.Done()
			ended <- x.Life.Fault()
			w.Abort()
		})})
		for way, leave := range ways {
			for name, request := range requests {
				v := h.visit(t)
				v.say(request)
				<-reached
				leave(v)
				if fault := <-ended; fault == nil || fault.Kind != exchange.ClientAborted {
					t.Errorf("%s, %s: the exchange ended with %v", way, name, fault)
				}
			}
		}
	})
}

// One that has gone does not end what comes after on another connection with the same memory.
func TestH1ClientGoesWhileOthersStay(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		over := make(chan bool)
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			reply(w, 200, "ok")
			if x.Req.Target == "/stays" {
				over <- x.Life.Over()
			}
		})})
		stays := h.visit(t)
		for range 50 {
			goes := h.visit(t)
			goes.say(get)
			goes.hear("GET")
			_ = goes.tcp.Close()
			stays.say("GET /stays HTTP/1.1\r\nHost: x\r\n\r\n")
			if got := stays.hear("GET"); got.body != "ok" {
				t.Fatalf("got %q", got.body)
			}
			if <-over {
				t.Fatal("the life of an exchange ended with another's client")
			}
		}
	})
}

// A response that cannot be completed is seen not to be whole.
func TestH1Abort(t *testing.T) {
	abort := func(length int64) serve {
		return func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, length)
			_, _ = io.WriteString(w, "partial")
			_ = w.Flush()
			w.Abort()
		}
	}
	tests := map[string]struct {
		request string
		handler serve
	}{
		"length":      {get, abort(100)},
		"chunked":     {get, abort(-1)},
		"until close": {"GET / HTTP/1.0\r\nHost: x\r\n\r\n", abort(-1)},
		"short": {get, func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, 3)
			_, _ = io.WriteString(w, "x")
			if w.Finish(nil) == nil {
				t.Error("a body shorter than its head says was taken")
			}
		}},
		"not finished": {get, func(_ *exchange.Exchange, w exchange.Responder) {
			_, _ = w.Respond(&exchange.Response{Status: 200}, -1), w.Flush()
		}},
		"no response": {get, func(*exchange.Exchange, exchange.Responder) {}},
		"more than told": {get, func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, 3)
			if _, err := io.WriteString(w, "four"); err == nil {
				t.Error("a body longer than its head says was taken")
			}
		}},
	}
	each(t, func(t *testing.T, secure bool) {
		for name, tc := range tests {
			h := build(t, houseOptions{secure: secure, handler: tc.handler})
			v := h.visit(t)
			v.say(tc.request)
			resp, err := http.ReadResponse(v.in, nil)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
			}
			if err == nil || isTimeout(err) {
				t.Errorf("%s: the client got a whole response, or %v", name, err)
			}
			if name == "until close" && !secure && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: got %v, want a reset", name, err)
			}
		}
	})
}

const upgrade = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: Chat\r\n\r\n"

// tunnel accepts an upgrade and sends back what comes, to the end of it.
func tunnel(x *exchange.Exchange, w exchange.Responder) {
	if x.Req.Protocol != "chat" {
		reply(w, 200, "plain")
		return
	}
	resp := exchange.Response{Status: 101}
	resp.Fields.Add("X-From", "handler")
	if w.Respond(&resp, -1) != nil {
		w.Abort()
		return
	}
	stream, err := w.Tunnel()
	if err != nil {
		w.Abort()
		return
	}
	_, _ = io.Copy(struct{ io.Writer }{stream}, struct{ io.Reader }{stream})
	_, _ = io.WriteString(stream, "bye")
	_ = stream.CloseWrite()
	_ = stream.Close()
}

func TestH1Upgrade(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(tunnel), limits: Limits{IdleTimeout: soon, BodyIdleTimeout: soon}})
		v := h.visit(t)
		v.say(get)
		v.hear("GET")
		v.say(upgrade)
		resp, err := http.ReadResponse(v.in, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "chat" || resp.Header.Get("Connection") != "Upgrade" || resp.Header.Get("X-From") != "handler" {
			t.Fatalf("%+v, %v", resp, err)
		}
		buf := make([]byte, 5)
		pause := time.NewTimer(4 * soon) // limits are for requests
		defer pause.Stop()
		for range 3 {
			v.say("hello")
			if _, err := io.ReadFull(v.in, buf); err != nil || string(buf) != "hello" {
				t.Fatalf("%q, %v", buf, err)
			}
		}
		<-pause.C
		v.say("still")
		if _, err := io.ReadFull(v.in, buf); err != nil || string(buf) != "still" {
			t.Fatalf("%q, %v after a pause", buf, err)
		}
		if half, ok := v.Conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
			t.Fatal("no half-close")
		}
		if rest, err := io.ReadAll(v.in); err != nil || string(rest) != "bye" {
			t.Errorf("%q, %v after the half-close", rest, err)
		}
	})
}

// Bytes that come before the upgrade is accepted can only be meant for a server that does not look.
func TestH1EarlyBytes(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		arrived := make(chan struct{})
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			<-arrived
			tunnel(x, w)
		})})
		for name, parts := range map[string][]string{"at once": {upgrade + get}, "later": {upgrade, get}} {
			v := h.visit(t)
			for _, part := range parts {
				v.say(part)
			}
			arrived <- struct{}{} // on loopback what was written is there
			if got := v.hear("GET"); got.StatusCode != 400 || !got.Close {
				t.Errorf("%s: got %d, closing %v", name, got.StatusCode, got.Close)
			}
			v.wantEnd()
		}
	})
}

func TestH1Drain(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		reached, release := make(chan struct{}), make(chan struct{})
		h := build(t, houseOptions{secure: secure, drain: patience, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			if x.Req.Target == "/slow" {
				reached <- struct{}{}
				<-release
			}
			reply(w, 200, "ok")
		})})
		idle, unused, busy := h.visit(t), h.visit(t), h.visit(t)
		idle.say(get)
		idle.hear("GET")
		busy.say("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
		<-reached
		h.Apply(nil)
		idle.wantEnd()
		unused.wantEnd()
		if v, err := h.dial(t); err == nil {
			t.Errorf("a new connection was taken: %v", v.LocalAddr())
		}
		select {
		case key := <-h.closed:
			t.Fatalf("%s is said to be closed with an exchange under way", key)
		default:
		}
		close(release)
		if got := busy.hear("GET"); got.body != "ok" || !got.Close {
			t.Errorf("got %q, closing %v", got.body, got.Close)
		}
		busy.wantEnd()
		_ = busy.Close()
		if key := <-h.closed; key != h.bind.Key() {
			t.Errorf("%s is said to be closed", key)
		}
		if n := h.count(exchange.HTTP11); n != 0 {
			t.Errorf("%d connections are counted at the end", n)
		}
	})
}

// What does not end by itself is cut when the time is over: exchanges, bodies that do not come, tunnels, handshakes.
func TestH1DrainCuts(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		reached := make(chan struct{})
		ended := make(chan *exchange.Fault, 1)
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			reached <- struct{}{}
			switch x.Req.Target {
			case "/chat":
				tunnel(x, w)
			case "/body":
				_, _ = io.Copy(io.Discard, x.ReqBody)
			default:
				<-x.Life.Done()
				ended <- x.Life.Fault()
			}
			w.Abort()
		})})
		for _, request := range []string{get, upgrade, "PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "GET / HT"} {
			v := h.visit(t)
			v.say(request)
			if strings.HasSuffix(request, "\r\n\r\n") {
				<-reached
			}
		}
		silent, err := net.Dial("tcp", h.address)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		began := time.Now()
		if err := h.Shutdown(ctx); err == nil {
			t.Error("Shutdown says that all was drained")
		}
		if took := time.Since(began); took > patience/2 {
			t.Errorf("Shutdown took %v", took)
		}
		if fault := <-ended; fault == nil || fault.Kind != exchange.ClientAborted {
			t.Errorf("the exchange ended with %v", fault)
		}
	})
}

func TestMaxConnections(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo), limits: Limits{MaxConnections: 2}})
		first, second := h.visit(t), h.visit(t)
		for _, v := range []*visitor{first, second} {
			v.say(get)
			v.hear("GET")
		}
		third, err := h.dial(t)
		if err == nil {
			third.say(get)
			_, err = third.in.ReadByte()
		}
		if err == nil {
			t.Error("a connection over the limit was served")
		}
		first.say(get) // those within it go on
		first.hear("GET")
		if n := h.count(exchange.HTTP11); n != 2 {
			t.Errorf("%d connections are counted, want 2", n)
		}
		_ = second.tcp.Close()
		for { // the server notices in its own time
			if v, err := h.dial(t); err == nil {
				_, _ = io.WriteString(v, get)
				if _, err := v.in.ReadByte(); err == nil {
					return
				}
			}
		}
	})
}

// An idle connection passes to a goroutine with a small stack, and goes on.
func TestH1Renewal(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo)})
		v := h.visit(t)
		h.Server.mu.Lock()
		clients := &h.binds[h.bind.place()].(*bind).clients
		h.Server.mu.Unlock()
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for range 2 {
			v.say(get)
			v.hear("GET")
			s, ok := clients.all(nil)[0].current().(*h1Session)
			if !ok {
				t.Fatal("no session")
			}
			for deep := true; deep; <-pace.C {
				s.mu.Lock()
				deep = s.deep
				s.mu.Unlock()
			}
		}
		v.say(get[:10])
		v.say(get[10:])
		v.hear("GET")
		_ = v.tcp.CloseWrite()
		v.wantEnd()
	})
}
