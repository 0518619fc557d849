package downstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// waits tells of each exchange and serves it when told to.
type waits struct {
	begun chan *exchange.Exchange
	goOn  chan struct{}
	ended chan *exchange.Fault // what the life ended with
}

func newWaits() *waits {
	return &waits{make(chan *exchange.Exchange, 1000), make(chan struct{}), make(chan *exchange.Fault, 1000)}
}

func (h *waits) ServeExchange(x *exchange.Exchange, w exchange.Responder) {
	h.begun <- x
	select {
	case <-h.goOn:
		echo(x, w)
	case <-x.Life.Done():
		h.ended <- x.Life.Fault()
		w.Abort()
	}
}

// The exchange ends with the client's interest in it.
func TestH2LifeEnds(t *testing.T) {
	tests := map[string]func(p *h2peer){
		"reset":      func(p *h2peer) { p.ok(p.frame.WriteRSTStream(1, http2.ErrCodeCancel)) },
		"close":      func(p *h2peer) { _ = p.tcp.Close() },
		"half close": func(p *h2peer) { _ = p.tcp.CloseWrite() },
		"abort":      func(p *h2peer) { _ = p.tcp.SetLinger(0); _ = p.tcp.Close() },
		"a breach":   func(p *h2peer) { p.ok(p.frame.WriteWindowUpdate(0, 1<<31-1)) },
	}
	each(t, func(t *testing.T, secure bool) {
		for name, act := range tests {
			handler := newWaits()
			h := build(t, houseOptions{secure: secure, handler: handler})
			p := h.visit2(t)
			p.open(1, false, ":method", "POST")
			<-handler.begun
			act(p)
			if fault := <-handler.ended; fault.Kind != exchange.ClientAborted || fault.Err == nil {
				t.Errorf("%s: %v", name, fault)
			}
			if name == "reset" {
				close(handler.goOn)
				p.lives(3)
				if a := p.stream(1); a.status != 0 || a.reset {
					t.Errorf("something came on a stream after its reset: %+v", a)
				}
			}
		}
	})
}

// What waits for the client ends with it, too.
func TestH2WaitsEnd(t *testing.T) {
	tests := map[string]serve{
		"read": func(x *exchange.Exchange, w exchange.Responder) {
			_ = w.Inform(103, nil)
			_, _ = io.ReadAll(x.ReqBody)
		},
		"write": func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, -1)
			for {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		},
		"write without flow control": func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, -1)
			for {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		},
		"flush": func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, -1)
			for {
				if _, err := w.Write([]byte{1}); err != nil || w.Flush() != nil {
					return
				}
			}
		},
	}
	acts := map[string]func(p *h2peer){
		"reset": func(p *h2peer) { p.ok(p.frame.WriteRSTStream(1, http2.ErrCodeCancel)) },
		"close": func(p *h2peer) { _ = p.tcp.Close() },
	}
	each(t, func(t *testing.T, secure bool) {
		for name, handler := range tests {
			for how, act := range acts {
				ended := make(chan struct{})
				h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
					handler(x, w)
					close(ended)
				})})
				settings := []http2.Setting{}
				if strings.Contains(name, "flow") {
					settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
				}
				p := h.visit2(t, settings...)
				p.open(1, false, ":method", "POST")
				if len(settings) > 0 {
					p.ok(p.frame.WriteWindowUpdate(0, 1<<30))
				}
				p.until("the answer's begin", func() bool { return p.stream(1).status == 200 || len(p.stream(1).interim) > 0 })
				act(p)
				if how == "reset" { // who writes for others must get on
					go func() { _, _ = io.Copy(io.Discard, p.conn) }()
				}
				select {
				case <-ended:
				case <-time.After(patience):
					t.Fatalf("%s, %s: the handler still waits", name, how)
				}
			}
		}
	})
}

func TestH2Timeouts(t *testing.T) {
	block := func(p *h2peer, n int) []byte { return p.encode(h2fields())[:n] }
	greet := func(p *h2peer) {
		p.until("the handshake", func() bool { return p.acked == 1 && len(p.settings) > 0 })
		p.silent = true
	}
	tests := map[string]struct {
		limits Limits
		send   func(p *h2peer)
		want   http2.ErrCode
		status int // of stream 1, with 0 the connection ends
	}{
		"nothing after the preface": {Limits{HeaderTimeout: soon}, nil, http2.ErrCodeEnhanceYourCalm, 0},
		"no acknowledgement":        {Limits{HeaderTimeout: soon}, func(p *h2peer) { p.silent = true }, http2.ErrCodeSettingsTimeout, 0},
		"idle":                      {Limits{IdleTimeout: soon}, func(*h2peer) {}, http2.ErrCodeNo, 0},
		"idle after a request":      {Limits{IdleTimeout: soon}, func(p *h2peer) { p.lives(1) }, http2.ErrCodeNo, 0},
		"half a header":             {Limits{HeaderTimeout: soon}, func(p *h2peer) { greet(p); _, _ = p.conn.Write([]byte{0, 0, 8}) }, http2.ErrCodeEnhanceYourCalm, 0},
		"half a HEADERS": {Limits{HeaderTimeout: soon}, func(p *h2peer) {
			greet(p)
			_, _ = p.conn.Write([]byte{0, 0, 8, 1, 5, 0, 0, 0, 1, 'x'})
		}, http2.ErrCodeEnhanceYourCalm, 0},
		"no CONTINUATION": {Limits{HeaderTimeout: soon}, func(p *h2peer) {
			greet(p)
			p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(p, 3)}))
		}, http2.ErrCodeEnhanceYourCalm, 0},
		"slow CONTINUATION": {Limits{HeaderTimeout: soon}, func(p *h2peer) {
			greet(p)
			p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(p, 3)}))
			_ = p.tcp.SetNoDelay(true)
			for range 25 { // it would be over in 250 ms
				time.Sleep(soon / 4)
				if p.frame.WriteContinuation(1, false, []byte{0x82}) != nil {
					return
				}
			}
		}, http2.ErrCodeEnhanceYourCalm, 0},
		"no body": {Limits{BodyIdleTimeout: soon}, func(p *h2peer) { p.open(1, false, ":method", "POST") }, 0, 408},
		"half a body": {Limits{BodyIdleTimeout: soon}, func(p *h2peer) {
			p.open(1, false, ":method", "POST")
			p.ok(p.frame.WriteData(1, false, []byte("half")))
		}, 0, 408},
	}
	each(t, func(t *testing.T, secure bool) {
		for name, tc := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := build(t, houseOptions{secure: secure, handler: serve(echo), limits: tc.limits})
				began := time.Now()
				var p *h2peer
				if tc.send == nil {
					p = h.dial2(t)
					_, err := io.WriteString(p.conn, http2.ClientPreface)
					p.ok(err)
					p.silent = true
				} else {
					p = h.visit2(t)
					tc.send(p)
				}
				if tc.status != 0 {
					if a := p.answer(1); a.status != tc.status {
						t.Errorf("got %+v", a)
					}
				} else if got := p.end(); got.code != tc.want {
					t.Errorf("got %+v, want %v", got, tc.want)
				}
				if took := time.Since(began); took < soon {
					t.Errorf("it took %v with a limit of %v", took, soon)
				}
			})
		}
	})
}

// A limit is for one wait: a body may come slowly, a response be taken slowly, a request take long.
func TestH2LimitsBeginAnew(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		const limit = 250 * time.Millisecond
		handler := newWaits()
		h := build(t, houseOptions{secure: secure, handler: handler, limits: Limits{BodyIdleTimeout: limit, IdleTimeout: limit, HeaderTimeout: limit}})
		p := h.visit2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.open(1, false, ":method", "POST")
		p.until("the handshake", func() bool { return p.acked == 1 && p.credit > 0 })
		for range 4 {
			time.Sleep(limit / 2)
			p.ok(p.frame.WriteData(1, false, make([]byte, 1000)))
		}
		p.ok(p.frame.WriteData(1, true, make([]byte, 1000)))
		time.Sleep(limit * 3 / 2) // nobody waits for the client now
		close(handler.goOn)
		a := p.stream(1)
		for n := range 4 {
			p.ok(p.frame.WriteWindowUpdate(1, 1200))
			p.until("some of the answer", func() bool { return a.reset || len(a.body) >= 1200*(n+1) })
			time.Sleep(limit / 2)
		}
		p.ok(p.frame.WriteWindowUpdate(1, 1200))
		if p.answer(1); a.status != 200 || a.reset {
			t.Errorf("got %d, %d bytes, reset %v", a.status, len(a.body), a.reset)
		}
	})
}

// A client that takes nothing of a response, or next to nothing, loses its stream; one that does not even read loses its connection.
func TestH2SlowReaders(t *testing.T) {
	const limit = 100 * time.Millisecond
	each(t, func(t *testing.T, secure bool) {
		handler := serve(func(x *exchange.Exchange, w exchange.Responder) {
			if x.Req.Target == "/" {
				echo(x, w)
				return
			}
			_ = w.Respond(&exchange.Response{Status: 200}, -1)
			for {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		})
		h := build(t, houseOptions{secure: secure, handler: handler, limits: Limits{BodyIdleTimeout: limit}})
		t.Run("closed window", func(t *testing.T) {
			p := h.visit2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			p.open(1, true, ":path", "/endless")
			if a := p.answer(1); !a.reset || a.code != http2.ErrCodeCancel {
				t.Errorf("got %+v", a)
			}
			p.ok(p.frame.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000}))
			p.lives(3)
		})
		t.Run("a byte at a time", func(t *testing.T) {
			p := h.visit2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			p.open(1, true, ":path", "/endless")
			a := p.stream(1)
			for range 200 {
				p.ok(p.frame.WriteWindowUpdate(1, 1))
				n := len(a.body)
				p.until("a byte", func() bool { return a.reset || len(a.body) > n })
				if a.reset {
					break
				}
				time.Sleep(limit / 20)
			}
			if !a.reset || len(a.body) == 0 {
				t.Errorf("%d bytes, reset %v", len(a.body), a.reset)
			}
		})
		t.Run("no reading", func(t *testing.T) {
			p := h.visit2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
			p.ok(p.frame.WriteWindowUpdate(0, 1<<30))
			p.open(1, true, ":path", "/endless")
			deadline := time.Now().Add(patience)
			for h.count(exchange.HTTP2) > 2 { // those of the two above are open still
				if time.Now().After(deadline) {
					t.Fatal("a connection that is not read goes on")
				}
				time.Sleep(time.Millisecond)
			}
		})
	})
}

// Requests over MaxStreams are refused, and may be sent again. A reset does not make room before the work has ended.
func TestH2MaxStreams(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		handler := newWaits()
		stubborn := make(chan struct{})
		h := build(t, houseOptions{secure: secure, limits: Limits{MaxStreams: 3}, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			if x.Req.Target == "/stubborn" { // does not look at its life
				handler.begun <- x
				<-stubborn
				return
			}
			handler.ServeExchange(x, w)
		})})
		p := h.visit2(t)
		for id := uint32(1); id <= 5; id += 2 {
			p.open(id, true, ":path", "/stubborn")
			<-handler.begun
			p.ok(p.frame.WriteRSTStream(id, http2.ErrCodeCancel))
		}
		p.open(7, true)
		if a := p.answer(7); !a.reset || a.code != http2.ErrCodeRefusedStream {
			t.Fatalf("got %+v", a)
		}
		close(stubborn)
		close(handler.goOn)
		for id := uint32(9); ; id += 2 { // the work ends in its own time
			p.open(id, true)
			if a := p.answer(id); a.status == 200 {
				break
			} else if a.code != http2.ErrCodeRefusedStream {
				t.Fatalf("got %+v", a)
			}
		}
	})
}

// drained shuts the server down and returns what that ends with.
func (h *house) drained() chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- h.Shutdown(ctx)
	}()
	return done
}

// A drain lets what is under way finish, and what is on its way begin.
func TestH2Drain(t *testing.T) {
	handler := newWaits()
	p, s, served := untimed(t, handler)
	p.open(1, false, ":method", "POST")
	<-handler.begun
	p.silent = true // the second step comes with the answer to PING
	s.drain()
	p.until("GOAWAY", func() bool { return len(p.goAways) == 1 })
	if got := p.goAways[0]; got.last != 1<<31-1 || got.code != http2.ErrCodeNo {
		t.Errorf("the first is %+v", got)
	}
	p.open(3, true) // on its way at that time: it is served
	<-handler.begun
	p.ok(p.frame.WritePing(true, h2DrainPing))
	p.until("GOAWAY", func() bool { return len(p.goAways) == 2 })
	if got := p.goAways[1]; got.last != 3 || got.code != http2.ErrCodeNo {
		t.Errorf("the second is %+v", got)
	}
	p.open(5, false)
	p.ok(p.frame.WriteData(5, true, []byte("nobody reads this")))
	close(handler.goOn)
	p.ok(p.frame.WriteData(1, true, []byte("rest")))
	for _, id := range []uint32{1, 3} {
		if a := p.answer(id); a.status != 200 {
			t.Errorf("stream %d: %+v", id, a)
		}
	}
	p.end()
	if len(p.goAways) != 2 || p.streams[5] != nil {
		t.Errorf("GOAWAY %+v, stream 5 %+v", p.goAways, p.streams[5])
	}
	_ = p.conn.Close()
	<-served
	s.client.bind.workers.close()
}

func TestH2Shutdown(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		handler := newWaits()
		h := build(t, houseOptions{secure: secure, handler: handler})
		idle, busy := h.visit2(t), h.visit2(t)
		idle.until("the handshake", func() bool { return idle.acked == 1 })
		busy.open(1, true)
		<-handler.begun
		done := h.drained()
		if got := idle.end(); len(idle.goAways) != 2 || got.last != 0 || got.code != http2.ErrCodeNo {
			t.Errorf("the idle one got %+v", idle.goAways)
		}
		_ = idle.conn.Close()
		close(handler.goOn)
		if a := busy.answer(1); a.status != 200 {
			t.Errorf("got %+v", a)
		}
		busy.end()
		_ = busy.conn.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A client that does not answer gets the second GOAWAY all the same.
func TestH2DrainOfTheSilent(t *testing.T) {
	h := build(t, houseOptions{handler: serve(echo), limits: Limits{HandshakeTimeout: soon}}) // for short periods
	p := h.visit2(t)
	p.until("the handshake", func() bool { return p.acked == 1 })
	p.silent = true
	done := h.drained()
	p.end()
	if len(p.goAways) != 2 {
		t.Errorf("got %+v", p.goAways)
	}
	_ = p.conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestH2Cut(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		handler := newWaits()
		h := build(t, houseOptions{secure: secure, handler: handler})
		p := h.visit2(t)
		p.open(1, true)
		<-handler.begun
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := h.Shutdown(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if fault := <-handler.ended; fault.Kind != exchange.ClientAborted {
			t.Errorf("the exchange ended with %v", fault)
		}
		p.end()
	})
}

// A client's GOAWAY does not disturb what is under way.
func TestH2ClientGoAway(t *testing.T) {
	handler := newWaits()
	h := build(t, houseOptions{handler: handler})
	p := h.visit2(t)
	p.open(1, true)
	<-handler.begun
	p.ok(p.frame.WriteGoAway(0, http2.ErrCodeNo, nil))
	close(handler.goOn)
	if a := p.answer(1); a.status != 200 {
		t.Errorf("got %+v", a)
	}
}

// A stream whose window is closed holds up no other; neither does one whose body nobody reads.
func TestH2Independence(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		hold := make(chan struct{})
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			switch x.Req.Target {
			case "/unread":
				<-hold
			case "/large":
				reply(w, 200, strings.Repeat("l", 100_000))
			default:
				echo(x, w)
			}
		})})
		defer close(hold)
		p := h.visit2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 20_000})
		p.ok(p.frame.WriteWindowUpdate(0, 1<<20))
		p.open(1, true, ":path", "/large")
		p.open(3, false, ":method", "POST", ":path", "/unread")
		for range h2StreamWindow / 16384 {
			p.ok(p.frame.WriteData(3, false, make([]byte, 16384)))
		}
		for id := uint32(5); id < 25; id += 2 {
			p.lives(id)
		}
		a := p.stream(1)
		p.until("what the window has room for", func() bool { return len(a.body) == 20_000 })
		// A larger initial window opens that of streams that are there.
		p.ok(p.frame.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 50_000}))
		p.until("more", func() bool { return len(a.body) == 50_000 })
		// A smaller one can make it negative.
		p.ok(p.frame.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10_000}))
		p.ok(p.frame.WriteWindowUpdate(1, 40_000))
		p.ok(p.frame.WritePing(false, [8]byte{1}))
		p.until("the answer to PING", func() bool { return len(p.pings) == 1 })
		if len(a.body) != 50_000 {
			t.Errorf("%d bytes with a window of 0", len(a.body))
		}
		p.ok(p.frame.WriteWindowUpdate(1, 50_000))
		if p.answer(1); len(a.body) != 100_000 {
			t.Errorf("got %d bytes", len(a.body))
		}
	})
}

// A large body arrives whole; the windows are opened as it is read.
func TestH2Upload(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		const size = 6 << 20
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			n, sum := 0, 0
			buffer := make([]byte, 32<<10)
			for {
				m, err := x.ReqBody.Read(buffer)
				for i, c := range buffer[:m] {
					if c != byte((n+i)*7) {
						sum++
					}
				}
				n += m
				if err != nil {
					reply(w, 200, strconv.Itoa(n)+" "+strconv.Itoa(sum))
					return
				}
			}
		})})
		p := h.visit2(t)
		p.open(1, false, ":method", "POST")
		p.until("the handshake", func() bool { return p.acked == 1 && p.credit > 0 })
		a := p.stream(1)
		pattern := make([]byte, size)
		for i := range pattern {
			pattern[i] = byte(i * 7)
		}
		for sent := 0; sent < size; {
			p.until("window", func() bool { return sent < int(p.credit)+65535 && sent < int(a.credit)+h2StreamWindow })
			n := min(16384, size-sent, int(p.credit)+65535-sent, int(a.credit)+h2StreamWindow-sent)
			p.ok(p.frame.WriteData(1, sent+n == size, pattern[sent:sent+n]))
			sent += n
		}
		if !bytes.Equal([]byte(strconv.Itoa(size)+" 0"), p.answer(1).body) {
			t.Errorf("got %q, want %d bytes", a.body, size)
		}
	})
}

// Priorities come by field, by PRIORITY_UPDATE ahead of the request, which outdoes the field, and by PRIORITY_UPDATE later. What is done with
// them is h2.Output's.
func TestH2Priorities(t *testing.T) {
	handler := newWaits()
	p, s, served := untimed(t, handler)
	update := func(id byte, value string) {
		p.ok(p.frame.WriteRawFrame(0x10, 0, 0, append([]byte{0, 0, 0, id}, value...)))
	}
	update(7, "u=0")
	update(5, "u=7")
	update(5, "u=6, i")
	p.open(1, true)
	p.open(3, true, "priority", "u=1, i")
	p.open(5, true, "priority", "u=2")
	p.open(7, true)
	p.open(9, true, "priority", "u=2")
	for range 5 {
		<-handler.begun
	}
	update(9, "i")
	p.ok(p.frame.WritePing(false, [8]byte{2}))
	p.until("the answer", func() bool { return len(p.pings) == 2 })
	got := map[uint32]h2.Priority{}
	s.mu.Lock()
	for _, st := range s.streams {
		got[st.id] = st.priority
	}
	s.mu.Unlock()
	want := map[uint32]h2.Priority{1: {Urgency: 3}, 3: {Urgency: 1, Incremental: true}, 5: {Urgency: 6, Incremental: true}, 7: {}, 9: {Urgency: 3, Incremental: true}}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	s.cut()
	<-served
	s.client.bind.workers.close()
}

func TestH2Tunnel(t *testing.T) {
	connect := []string{":method", "CONNECT", ":protocol", "WebSocket", ":path", "/chat"}
	each(t, func(t *testing.T, secure bool) {
		ended := make(chan error, 1)
		h := build(t, houseOptions{secure: secure, limits: Limits{BodyIdleTimeout: soon}, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			if x.Req.Protocol != "websocket" || x.Req.Method != "CONNECT" || x.Req.Target != "/chat" || x.ReqBody != exchange.NoBody {
				reply(w, 400, x.Req.Protocol)
				return
			}
			if x.Req.Fields.Has(exchange.Origin) {
				reply(w, 403, "no")
				return
			}
			resp := exchange.Response{Status: 101, Fields: exchange.Fields{{Name: "Upgrade", Value: "websocket", ID: exchange.Upgrade}, {Name: "X-A", Value: "1"}}}
			if err := w.Respond(&resp, 0); err != nil {
				ended <- err
				return
			}
			s, err := w.Tunnel()
			if err != nil {
				ended <- err
				return
			}
			buffer := make([]byte, 100)
			for err == nil {
				var n int
				if n, err = s.Read(buffer); n > 0 {
					if string(buffer[:n]) == "close" {
						err = io.ErrUnexpectedEOF
						break
					}
					_, err = s.Write(buffer[:n])
				}
			}
			if err == io.EOF {
				_, _ = io.WriteString(s, "bye")
				err = s.CloseWrite()
			}
			_ = s.Close()
			ended <- err
		})})
		p := h.visit2(t)
		p.open(1, false, connect...)
		a := p.stream(1)
		p.until("the head", func() bool { return a.status != 0 || a.reset })
		if a.status != 200 || a.fields["upgrade"] != "" || a.fields["x-a"] != "1" || a.fields["content-length"] != "" {
			t.Fatalf("got %+v", a)
		}
		p.ok(p.frame.WriteData(1, false, []byte("hello")))
		p.until("the echo", func() bool { return string(a.body) == "hello" })
		time.Sleep(3 * soon) // a tunnel may be silent
		p.ok(p.frame.WriteData(1, true, []byte(" again")))
		if p.answer(1); string(a.body) != "hello againbye" || !a.ended || a.reset {
			t.Errorf("got %+v", a)
		}
		if err := <-ended; err != nil {
			t.Errorf("the tunnel ended with %v", err)
		}

		p.open(3, false, connect...)
		p.ok(p.frame.WriteData(3, false, []byte("close"))) // before it is accepted
		if a := p.answer(3); a.status != 200 || a.ended || a.code != http2.ErrCodeCancel {
			t.Errorf("closed at once: %+v", a)
		}
		<-ended

		p.open(5, false, connect...)
		p.until("the head", func() bool { return p.stream(5).status == 200 })
		p.ok(p.frame.WriteRSTStream(5, http2.ErrCodeCancel))
		if fault, ok := errors.AsType[*exchange.Fault](<-ended); !ok || fault.Kind != exchange.ClientAborted {
			t.Errorf("a reset tunnel ended with %v", fault)
		}

		p.open(7, false, append(connect, "origin", "x")...)
		a = p.answer(7)
		p.until("the end of both sides", func() bool { return a.reset })
		if a.status != 403 || string(a.body) != "no" || a.code != http2.ErrCodeNo {
			t.Errorf("refused: %+v", a)
		}
	})
}

// untimed is a session whose time passes only when the test calls its tick. served is closed when it has ended.
func untimed(t *testing.T, handler exchange.Handler) (p *h2peer, s *h2Session, served chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := &house{address: l.Addr().String()}
	p = h.visit2(t)
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	tcp, _ := accepted.(*net.TCPConn)
	wrapped, err := sock.New(tcp, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &bind{options: &Options{Handler: handler, Limits: Limits{}.WithDefaults()}}
	s = newH2(&client{bind: b, sock: wrapped, rw: wrapped}, nil)
	served = make(chan struct{})
	go func() { s.serve(); close(served) }()
	p.until("the handshake", func() bool { return p.acked == 1 && len(p.settings) > 0 })
	p.ok(p.frame.WritePing(false, [8]byte{1})) // its answer says that the acknowledgement has come, too
	p.until("the answer", func() bool { return len(p.pings) == 1 })
	return p, s, served
}

// A client that vanished while a request is under way is noticed: it does not answer PING.
func TestH2VanishedClient(t *testing.T) {
	for name, answers := range map[string]bool{"answers": true, "vanished": false} {
		handler := newWaits()
		p, s, served := untimed(t, handler)
		p.open(1, true)
		<-handler.begun
		now := time.Now()
		for range 3 {
			s.tick(now)
			now = now.Add(h2PingAfter)
			s.tick(now.Add(-1))
			s.tick(now)
			asked := false
			for !asked {
				f, err := p.frame.ReadFrame()
				p.ok(err)
				ping, ok := f.(*http2.PingFrame)
				asked = ok && ping.Data == h2AlivePing && !ping.IsAck()
			}
			if !answers {
				break
			}
			p.ok(errors.Join(p.frame.WritePing(true, h2AlivePing), p.frame.WritePing(false, [8]byte{2})))
			n := len(p.pings)
			p.until("the answer", func() bool { return len(p.pings) > n })
		}
		now = now.Add(h2PingTime - 1)
		s.tick(now)
		select {
		case <-handler.ended:
			t.Errorf("%s: the exchange ended too early", name)
		default:
		}
		s.tick(now.Add(1))
		if answers {
			close(handler.goOn)
			if a := p.answer(1); a.status != 200 {
				t.Errorf("got %+v", a)
			}
			s.cut()
		} else if fault := <-handler.ended; fault.Kind != exchange.ClientAborted {
			t.Errorf("it ended with %v", fault)
		}
		<-served
		s.client.bind.workers.close()
	}
}
