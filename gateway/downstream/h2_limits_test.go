package downstream

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

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
		const limit, rounds = 600 * time.Millisecond, 8
		handler := newWaits()
		h := build(t, houseOptions{secure: secure, handler: handler, limits: Limits{BodyIdleTimeout: limit, IdleTimeout: limit, HeaderTimeout: limit}})
		p := h.visit2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.open(1, false, ":method", "POST", "content-length", strconv.Itoa(1200*rounds))
		p.until("the handshake", func() bool { return p.acked == 1 && p.credit > 0 })
		close(handler.goOn) // it reads
		for n := range rounds {
			time.Sleep(limit / 5)
			p.ok(p.frame.WriteData(1, n == rounds-1, make([]byte, 1200)))
		}
		a := p.stream(1)
		for n := range rounds {
			time.Sleep(limit / 5)
			p.ok(p.frame.WriteWindowUpdate(1, 1200))
			p.until("some of the answer", func() bool { return a.reset || len(a.body) >= 1200*(n+1) })
		}
		p.ok(p.frame.WriteWindowUpdate(1, 1200))
		if p.answer(1); a.status != 200 || a.reset {
			t.Errorf("got %d, %d bytes, reset %v", a.status, len(a.body), a.reset)
		}
	})
}

// A body that is said to be long and comes byte by byte, each just in time, does not last; one without a length may come so.
func TestH2Trickle(t *testing.T) {
	for name, told := range map[string]bool{"with a length": true, "without": false} {
		handler := newWaits()
		p, s, served := untimed(t, handler)
		fields := []string{":method", "POST"}
		if told {
			fields = append(fields, "content-length", "1000000")
		}
		p.open(1, false, fields...)
		<-handler.begun
		handler.goOn <- struct{}{} // it reads
		a, now, limit := p.stream(1), time.Now(), s.limits.BodyIdleTimeout
		s.tick(now)
		for n := range 10 {
			if a.status == 0 {
				p.ok(p.frame.WriteData(1, !told && n == 9, []byte("a")))
			}
			pings := len(p.pings)
			p.ok(p.frame.WritePing(false, [8]byte{2}))
			p.until("the answer", func() bool { return len(p.pings) > pings })
			for waiting := false; !waiting && a.status == 0 && (told || n < 9); { // for the next byte
				runtime.Gosched()
				s.mu.Lock()
				if waiting = len(s.streams) == 0; !waiting {
					st := s.streams[0]
					waiting = st.taken == st.got && st.waiting.kind() != 0
				}
				s.mu.Unlock()
			}
			now = now.Add(limit / 4)
			s.tick(now)
		}
		if want := map[bool]int{true: 408, false: 200}[told]; p.answer(1).status != want {
			t.Errorf("%s: got %d, want %d", name, a.status, want)
		}
		s.cut()
		<-served
		s.client.bind.workers.close()
	}
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
