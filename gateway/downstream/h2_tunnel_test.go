package downstream

import (
	"errors"
	"io"
	"maps"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

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
		h := build(t, houseOptions{secure: secure, limits: Limits{BodyIdleTimeout: soon, MaxBodyBytes: 5}, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
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
