package downstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/exchange"
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

// GOAWAY does not wait for exchanges that take their time to end.
func TestH2GoAwayComesAtOnce(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	h := build(t, houseOptions{handler: serve(func(*exchange.Exchange, exchange.Responder) {
		close(begun)
		<-end
	})})
	p := h.visit2(t)
	p.open(1, true)
	<-begun
	p.ok(p.frame.WriteWindowUpdate(0, 1<<31-1))
	p.until("GOAWAY", func() bool { return len(p.goAways) > 0 })
	close(end)
	if got := p.end(); got.code != http2.ErrCodeFlowControl || got.last != 1 {
		t.Errorf("got %+v", got)
	}
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
	p, s, served := untimed(t, serve(echo))
	p.silent = true
	now := time.Now()
	s.drain()
	s.tick(now)
	s.tick(now.Add(h2DrainTime - 1))
	p.until("GOAWAY", func() bool { return len(p.goAways) == 1 })
	p.lives(1)
	s.tick(now.Add(h2DrainTime))
	if got := p.end(); len(p.goAways) != 2 || got.last != 1 {
		t.Errorf("got %+v", p.goAways)
	}
	_ = p.conn.Close()
	<-served
	s.client.bind.workers.close()
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
