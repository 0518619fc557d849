package downstream

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Every flood ends its own connection, with GOAWAY ENHANCE_YOUR_CALM, and no other.
func TestH2Floods(t *testing.T) {
	const most = 200_000 // acts; a budget lets far less pass
	raw := func(kind http2.FrameType, flags http2.Flags, stream uint32, size int) func(p *h2peer, n uint32) error {
		return func(p *h2peer, _ uint32) error { return p.frame.WriteRawFrame(kind, flags, stream, make([]byte, size)) }
	}
	block := h2Block(h2fields(":path", "/wait"))
	head := func(p *h2peer, id uint32, end bool) error {
		return p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: end, EndHeaders: true})
	}
	tests := map[string]struct {
		act     func(p *h2peer, n uint32) error // the n-th act; stream 1 is a request that waits
		streams uint32                          // so many may pass, refused ones included; 0: the act opens none
		close   bool                            // the client does not read: there is nobody to tell
	}{
		"rapid reset": {func(p *h2peer, n uint32) error {
			return errors.Join(head(p, 2*n+3, true), p.frame.WriteRSTStream(2*n+3, http2.ErrCodeCancel))
		}, 1500, false},
		"reset by WINDOW_UPDATE": {func(p *h2peer, n uint32) error {
			return errors.Join(head(p, 2*n+3, true), p.frame.WriteWindowUpdate(2*n+3, 1<<31-1))
		}, 1500, false},
		"reset by WINDOW_UPDATE of 0": {func(p *h2peer, n uint32) error {
			return errors.Join(head(p, 2*n+3, true), p.frame.WriteRawFrame(http2.FrameWindowUpdate, 0, 2*n+3, make([]byte, 4)))
		}, 1500, false},
		"reset by PRIORITY": {func(p *h2peer, n uint32) error {
			return errors.Join(head(p, 2*n+3, true), p.frame.WritePriority(2*n+3, http2.PriorityParam{StreamDep: 2*n + 3}))
		}, 1500, false},
		"reset by DATA after the end": {func(p *h2peer, n uint32) error {
			return errors.Join(head(p, 2*n+3, true), p.frame.WriteData(2*n+3, true, nil))
		}, 1500, false},
		"DATA on one closed stream": {func(p *h2peer, n uint32) error {
			if n == 0 {
				return errors.Join(head(p, 3, true), p.frame.WriteRSTStream(3, http2.ErrCodeCancel))
			}
			return p.frame.WriteData(3, false, []byte("d"))
		}, 0, false},
		"malformed requests": {func(p *h2peer, n uint32) error {
			return p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 3, BlockFragment: []byte{0x82}, EndStream: true, EndHeaders: true})
		}, 1500, false},
		"large heads": {func(p *h2peer, n uint32) error {
			return p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 3, BlockFragment: slices.Concat(block, bytes.Repeat([]byte{0x80 | 16}, 1000)), EndStream: true, EndHeaders: true})
		}, 1500, false},
		"large trailers": {func(p *h2peer, n uint32) error {
			return errors.Join(head(p, 2*n+3, false), p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 3, BlockFragment: bytes.Repeat([]byte{0x80 | 16}, 1000), EndStream: true, EndHeaders: true}))
		}, 1500, false},
		"requests beyond MaxStreams": {func(p *h2peer, n uint32) error { return head(p, 2*n+3, false) }, 1500, false},
		"PING":                       {raw(http2.FramePing, 0, 0, 8), 0, false},
		"answers to PING":            {raw(http2.FramePing, 1, 0, 8), 0, false},
		"PING and no reading":        {raw(http2.FramePing, 0, 0, 8), 0, true},
		"SETTINGS":                   {raw(http2.FrameSettings, 0, 0, 0), 0, false},
		"acknowledgements":           {raw(http2.FrameSettings, 1, 0, 0), 0, false},
		"PRIORITY":                   {raw(http2.FramePriority, 0, 1, 5), 0, false},
		"PRIORITY of idle streams":   {raw(http2.FramePriority, 0, 99, 5), 0, false},
		"PRIORITY_UPDATE": {func(p *h2peer, _ uint32) error {
			return p.frame.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x63u=1"))
		}, 0, false},
		"WINDOW_UPDATE":             {func(p *h2peer, _ uint32) error { return p.frame.WriteWindowUpdate(0, 1) }, 0, false},
		"WINDOW_UPDATE of a stream": {func(p *h2peer, _ uint32) error { return p.frame.WriteWindowUpdate(1, 1) }, 0, false},
		"unknown":                   {raw(0x42, 0, 0, 0), 0, false},
		"large unknown":             {raw(0x42, 0, 0, 16000), 0, false},
		"GOAWAY":                    {raw(http2.FrameGoAway, 0, 0, 8), 0, false},
		"empty DATA":                {raw(http2.FrameData, 0, 1, 0), 0, false},
		"padding":                   {func(p *h2peer, _ uint32) error { return p.frame.WriteRawFrame(http2.FrameData, 8, 1, []byte{1, 0}) }, 0, false},
		"RST_STREAM of a closed one": {func(p *h2peer, n uint32) error {
			return errors.Join(headOnce(p, n, head), p.frame.WriteRSTStream(3, 8))
		}, 0, false},
		"CONTINUATION without end":    {func(p *h2peer, n uint32) error { return continued(p, n, block[:1]) }, 0, false},
		"empty CONTINUATION":          {func(p *h2peer, n uint32) error { return continued(p, n, nil) }, 0, false},
		"large CONTINUATION":          {func(p *h2peer, n uint32) error { return continued(p, n, make([]byte, 16384)) }, 0, false},
		"CONTINUATION in every block": {func(p *h2peer, n uint32) error { return manyBlocks(p, n, block) }, 100, false},
	}
	each(t, func(t *testing.T, secure bool) {
		stop := make(chan struct{})
		defer close(stop)
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			if x.Req.Target == "/wait" {
				select {
				case <-x.Life.Done():
				case <-stop:
				}
				return
			}
			echo(x, w)
		})})
		other := h.visit2(t)
		id := uint32(1)
		for name, tc := range tests {
			p := h.visit2(t)
			p.silent = true
			p.ok(p.frame.WriteSettingsAck())
			p.ok(head(p, 1, false))
			sent := make(chan int)
			go func() {
				n := 0
				for ; n < most && tc.act(p, uint32(n)) == nil; n++ {
				}
				sent <- n
			}()
			if tc.close {
				if n := <-sent; n == most {
					t.Errorf("%s: the connection goes on", name)
				}
				continue
			}
			code, last, err := readCode(p)
			if code != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("%s: GOAWAY %v, %v", name, code, err)
			}
			if tc.streams > 0 && last/2 > tc.streams || tc.streams == 0 && last > 3 {
				t.Errorf("%s: GOAWAY after stream %d", name, last)
			}
			_ = p.conn.Close()
			<-sent
			other.lives(id)
			id += 2
		}
	})
}

// readCode reads frames until GOAWAY and returns its code and its stream.
func readCode(p *h2peer) (http2.ErrCode, uint32, error) {
	for len(p.goAways) == 0 {
		if err := p.step(); err != nil {
			return 0xffff, 0, err
		}
	}
	return p.goAways[0].code, p.goAways[0].last, nil
}

func headOnce(p *h2peer, n uint32, head func(p *h2peer, id uint32, end bool) error) error {
	if n > 0 {
		return nil
	}
	return head(p, 3, true)
}

// continued is one block that never ends.
func continued(p *h2peer, n uint32, piece []byte) error {
	if n == 0 {
		return p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: nil})
	}
	return p.frame.WriteContinuation(3, false, piece)
}

// manyBlocks is requests with 30 CONTINUATION frames each, which is as many as a block may have.
func manyBlocks(p *h2peer, n uint32, block []byte) error {
	err := p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 3, BlockFragment: nil, EndStream: true})
	for range 29 {
		err = errors.Join(err, p.frame.WriteContinuation(2*n+3, false, nil))
	}
	return errors.Join(err, p.frame.WriteContinuation(2*n+3, true, block), p.frame.WriteRSTStream(2*n+3, 8))
}

// A client that works honestly is far from every budget: it reads much, measures the path, cancels now and then, sends priorities.
func TestH2NoFlood(t *testing.T) {
	h := build(t, houseOptions{handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		if x.Req.Method == "POST" {
			echo(x, w)
			return
		}
		_ = w.Respond(&exchange.Response{Status: 200}, -1)
		for range 50 {
			if _, err := w.Write(make([]byte, 1000)); err != nil || w.Flush() != nil {
				return
			}
		}
		_ = w.Finish(nil)
	})})
	p := h.visit2(t)
	for n := range uint32(300) {
		id := 4*n + 1
		p.ok(p.frame.WriteRawFrame(0x10, 0, 0, append([]byte{byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}, "u=2"...)))
		p.open(id, true)
		a := p.stream(id)
		for !a.ended {
			frames := a.frames
			p.until("DATA", func() bool { return a.frames > frames || a.ended || a.reset })
			if a.reset {
				t.Fatalf("stream %d was reset: %v", id, a.code)
			}
			if a.frames > frames {
				p.ok(errors.Join(p.frame.WriteWindowUpdate(0, 1000), p.frame.WriteWindowUpdate(id, 1000), p.frame.WritePing(false, [8]byte{})))
			}
		}
		if n%2 == 0 {
			p.open(id+2, false, ":method", "POST")
			p.ok(p.frame.WriteRSTStream(id+2, http2.ErrCodeCancel))
		}
	}
	p.lives(4*300 + 1)
}

// The budgets fill again with time.
func TestH2BudgetsRefill(t *testing.T) {
	p, s, served := untimed(t, serve(echo))
	now := time.Now()
	for range 4 {
		s.tick(now)
		n := len(p.pings)
		for range h2ControlMost * 8 / 10 {
			p.ok(p.frame.WritePing(false, [8]byte{}))
		}
		p.until("the answers", func() bool { return len(p.pings) == n+h2ControlMost*8/10 })
		now = now.Add(5 * time.Second)
	}
	p.lives(1)
	s.cut()
	<-served
	s.client.bind.workers.close()
}
