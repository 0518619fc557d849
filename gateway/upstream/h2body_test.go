package upstream

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TestH2Bodies: requests of every kind arrive as they were, and answers come back, over windows of every size.
func TestH2Bodies(t *testing.T) {
	large := bytesOf(3<<20 + 17)
	bodies := map[string]func() exchange.Body{
		"none":            func() exchange.Body { return exchange.NoBody },
		"empty, unsized":  func() exchange.Body { return streamed(nil) },
		"in memory":       func() exchange.Body { return exchange.Bytes(large[:1000]) },
		"largest inline":  func() exchange.Body { return exchange.Bytes(large[:inlineBody]) },
		"over inline":     func() exchange.Body { return exchange.Bytes(large[:inlineBody+1]) },
		"large in memory": func() exchange.Body { return exchange.Bytes(large) },
		"unsized":         func() exchange.Body { return streamed(large[:1000]) },
		"large, unsized":  func() exchange.Body { return streamed(large) },
		"trailers":        func() exchange.Body { return &trailed{exchange.Bytes(large[:100])} },
	}
	for _, protocol := range []string{"h2c", "TLS"} {
		echo := func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Trailer", "X-Sum")
			w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
			w.WriteHeader(http.StatusOK)
			n, _ := io.Copy(w, r.Body)
			w.Header().Set("X-Sum", fmt.Sprint(n, r.Trailer.Get("X-End")))
		}
		var conf *config.Cluster
		if protocol == "TLS" {
			ca := newCA(t)
			o := newOrigin(t, originOptions{protocols: h1AndH2, tls: &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "endpoint.test", "", nil)}}}, echo)
			conf = cluster(o.addr)
			conf.Protocol, conf.TLS = config.UpstreamHTTP2, &config.UpstreamTLS{ServerName: "endpoint.test", CAs: ca.pem}
		} else {
			conf = cluster(newOrigin(t, originOptions{protocols: h2c}, echo).addr)
			conf.Protocol = config.UpstreamH2C
		}
		c := single(t, conf)
		for name, body := range bodies {
			t.Run(protocol+" "+name, func(t *testing.T) {
				want, _ := io.ReadAll(body())
				a, fault := send(t.Context(), c, &Attempt{Request: request(t, "POST", "/", "Trailer", "x-end"), Body: body()})
				if fault != nil {
					t.Fatal(fault)
				}
				defer a.Body.Close()
				got, err := io.ReadAll(a.Body)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(want))
				}
				sum, end := fmt.Sprint(len(want)), ""
				if name == "trailers" {
					end = "end"
				}
				if got, _ := a.Body.Trailers().Lookup("X-Sum"); got != fmt.Sprint(sum, end) && got != fmt.Sprint(len(want), end) {
					t.Errorf("trailers %v", a.Body.Trailers())
				}
				length := body().Length()
				if name == "empty, unsized" {
					length = 0 // its end is known before its head is written
				}
				if got, _ := a.Response.Fields.Lookup("X-Length"); got != fmt.Sprint(length) && got != fmt.Sprint(body().Length()) {
					t.Errorf("the endpoint was told %s bytes, want %d", got, length)
				}
			})
		}
	}
}

// TestH2EndsWithTheLastByte: a body of known length ends in its last frame, so that an endpoint that counts need not be told afterwards.
func TestH2EndsWithTheLastByte(t *testing.T) {
	peer := newH2Peer(t)
	e := h2Endpoint(t, peer.addr)
	r := ask(e, request(t, "POST", "/"), &again{data: make([]byte, 20_000), length: 20_000, rest: make([]byte, 20_000)})
	c := peer.conn()
	if got := c.next(http2.FrameHeaders); got.ended() {
		t.Error("the request ended without its body")
	}
	got := 0
	for got < 20_000 {
		data := c.next(http2.FrameData)
		got += len(data.data)
		if data.ended() != (got == 20_000) {
			t.Errorf("ended %v after %d bytes", data.ended(), got)
		}
	}
	c.answer(1, "thanks")
	r.wants(t, "thanks")
	after := askPath(t, e, "/after")
	for { // no reset before it
		seen, _ := receiveOK(t, c.seen, "the next request")
		if seen.kind == http2.FrameHeaders {
			c.echoPath(seen)
			break
		}
		if seen.kind == http2.FrameRSTStream {
			t.Error("a whole exchange was reset")
		}
	}
	after.wants(t, "/after")
}

// TestH2WrongLength: a body that is not as long as its head says is never a whole request, and no frame follows its end.
func TestH2WrongLength(t *testing.T) {
	data := make([]byte, 40_000)
	for name, body := range map[string]exchange.Body{
		"short":           &again{data: data, length: 40_001, rest: data},
		"long":            &again{data: data, length: 30_000, rest: data},
		"short in memory": &againReady{again{data: data, length: 101, rest: data[:100]}},
		"long in memory":  &againReady{again{data: data, length: 99, rest: data[:100]}},
	} {
		t.Run(name, func(t *testing.T) {
			peer := newH2Peer(t)
			e := h2Endpoint(t, peer.addr)
			before := askPath(t, e, "/before")
			c := peer.conn()
			c.echoPath(c.next(http2.FrameHeaders))
			before.wants(t, "/before")
			if fault := ask(e, request(t, "POST", "/"), body).fails(t); fault.Kind != exchange.BadRequest {
				t.Errorf("got %v", fault)
			}
			after := askPath(t, e, "/after")
			ended := false
			for {
				seen, _ := receiveOK(t, c.seen, "the next request")
				if seen.field(":path") == "/after" {
					c.echoPath(seen)
					break
				}
				ended = ended || seen.stream == 3 && seen.kind == http2.FrameData && seen.ended()
			}
			if ended {
				t.Error("the request was ended")
			}
			after.wants(t, "/after")
		})
	}
}

// TestH2SmallerTable: an endpoint that makes its table smaller is told so, in the way that strict decoders insist on.
func TestH2SmallerTable(t *testing.T) {
	first := make(chan byte, 1)
	e := h2Endpoint(t, scripted(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		framer := http2.NewFramer(c, c)
		_ = framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 100})
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			if head, ok := frame.(*http2.HeadersFrame); ok {
				first <- head.HeaderBlockFragment()[0]
				_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200"), EndStream: true, EndHeaders: true})
			}
		}
	}))
	askGet(t, e).wants(t, "")
	if got := receive(t, first, "the request"); got != 0x20 {
		t.Errorf("the block begins with %#x", got)
	}
}

// TestH2Continue: a body whose client waits for 100 (Continue) is not sent before.
func TestH2Continue(t *testing.T) {
	start := func(t *testing.T) (*asking, *h2PeerConn) {
		peer := newH2Peer(t)
		r := ask(h2Endpoint(t, peer.addr), request(t, "POST", "/", "Expect", "100-continue"), exchange.Bytes([]byte("body")))
		c := peer.conn()
		if got := c.next(http2.FrameHeaders); got.ended() || got.field("expect") != "100-continue" || got.field("content-length") != "4" {
			t.Fatalf("got %+v", got)
		}
		_ = c.WritePing(false, [8]byte{1})
		for {
			if seen, _ := receiveOK(t, c.seen, "the ping's answer"); seen.kind == http2.FramePing {
				break
			} else if seen.kind == http2.FrameData {
				t.Fatal("the body was sent")
			}
		}
		return r, c
	}
	t.Run("asked for", func(t *testing.T) {
		r, c := start(t)
		c.head(1, false, ":status", "100")
		if got := c.next(http2.FrameData); got.data != "body" {
			t.Errorf("got %+v", got)
		}
		c.answer(1, "thanks")
		r.wants(t, "thanks")
	})
	t.Run("not wanted", func(t *testing.T) {
		r, c := start(t)
		c.answer(1, "no")
		r.wants(t, "no")
		for {
			seen, _ := receiveOK(t, c.seen, "the reset")
			if seen.kind == http2.FrameData {
				t.Fatal("the body was sent")
			}
			if seen.kind == http2.FrameRSTStream {
				break
			}
		}
	})
	t.Run("not answered", func(t *testing.T) {
		r, c := start(t)
		if got := c.next(http2.FrameData); got.data != "body" {
			t.Errorf("got %+v", got)
		}
		c.answer(1, "thanks")
		r.wants(t, "thanks")
	})
}

// TestH2EarlyAnswer: an answer that comes before the request is whole stands, and what is left of the request is not sent.
func TestH2EarlyAnswer(t *testing.T) {
	for name, reset := range map[string]bool{"reset": true, "not reset": false} {
		t.Run(name, func(t *testing.T) {
			peer := newH2Peer(t)
			e := h2Endpoint(t, peer.addr)
			r := ask(e, request(t, "POST", "/"), streamed(make([]byte, 1<<20)))
			c := peer.conn()
			c.next(http2.FrameHeaders)
			c.next(http2.FrameData)
			c.answer(1, "enough")
			if reset {
				_ = c.WriteRSTStream(1, http2.ErrCodeNo)
			}
			r.wants(t, "enough")
			if !reset {
				if got := c.next(http2.FrameRSTStream); got.code != http2.ErrCodeCancel {
					t.Errorf("got %v", got.code)
				}
			}
			after := askGet(t, e)
			seen := c.next(http2.FrameHeaders)
			c.answer(seen.stream, "after")
			after.wants(t, "after")
		})
	}
}

// TestH2Cancel: an attempt that ends early is reset; its connection serves the others.
func TestH2Cancel(t *testing.T) {
	cause := exchange.NewFault(exchange.UpstreamTimeout, nil)
	for name, body := range map[string]func() exchange.Body{"no body": func() exchange.Body { return exchange.NoBody },
		"body under way": func() exchange.Body { return streamed(make([]byte, 1<<20)) }} {
		for _, when := range []string{"head", "body"} {
			t.Run(name+", before the "+when, func(t *testing.T) {
				peer := newH2Peer(t)
				e := h2Endpoint(t, peer.addr)
				r := ask(e, request(t, "POST", "/"), body())
				c := peer.conn()
				c.next(http2.FrameHeaders)
				if when == "head" {
					r.life.End(cause)
					if fault := r.fails(t); fault != cause {
						t.Errorf("got %v", fault)
					}
				} else {
					c.head(1, false, ":status", "200")
					if fault := receive(t, r.fault, "the head"); fault != nil {
						t.Fatal(fault)
					}
					r.life.End(cause)
					if _, err := r.a.Answer.Read(make([]byte, 1)); err != cause {
						t.Errorf("got %v", err)
					}
					r.end()
				}
				if got := c.next(http2.FrameRSTStream); got.code != http2.ErrCodeCancel || got.stream != 1 {
					t.Errorf("got %+v", got)
				}
				// What was under way for it harms nobody.
				c.head(1, false, ":status", "200")
				_ = c.WriteData(1, true, []byte("late"))
				_ = c.WriteWindowUpdate(1, 100)
				_ = c.WriteRSTStream(1, http2.ErrCodeNo)
				_ = c.WriteWindowUpdate(0, 1<<20)
				after := askGet(t, e)
				seen := c.next(http2.FrameHeaders)
				c.answer(seen.stream, "after")
				after.wants(t, "after")
			})
		}
	}
}

// TestH2GivenUp: an answer that is closed unread is reset.
func TestH2GivenUp(t *testing.T) {
	peer := newH2Peer(t)
	e := h2Endpoint(t, peer.addr)
	r := askGet(t, e)
	c := peer.conn()
	c.next(http2.FrameHeaders)
	c.head(1, false, ":status", "200")
	_ = c.WriteData(1, false, make([]byte, 10_000))
	if fault := receive(t, r.fault, "the head"); fault != nil {
		t.Fatal(fault)
	}
	_ = r.a.Answer.Close()
	if got := c.next(http2.FrameRSTStream); got.code != http2.ErrCodeCancel {
		t.Errorf("got %+v", got)
	}
	if _, err := r.a.Answer.Read(make([]byte, 1)); err == nil {
		t.Error("reading goes on")
	}
	r.end()
}

// TestH2Load: many attempts at once, some of which end early, and every answer is its own.
func TestH2Load(t *testing.T) {
	o := newOrigin(t, originOptions{protocols: h2c}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Target", r.RequestURI)
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		_, _ = io.Copy(w, r.Body)
	})
	e := h2Endpoint(t, o.addr)
	var all sync.WaitGroup
	for worker := range 40 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			a := &Attempt{}
			for i := range 50 {
				target := fmt.Sprintf("/%d/%d", worker, i)
				body := bytes.Repeat([]byte(target), random.IntN(3000))
				head := &exchange.Head{Method: "POST", Scheme: "http", Authority: "a", Target: target}
				if err := head.Normalize(); err != nil {
					t.Error(err)
				}
				a.Reset()
				a.Request, a.Body = head, exchange.Bytes(body)
				if random.IntN(2) == 0 {
					a.Body = streamed(body)
				}
				aborted := random.IntN(5) == 0
				if aborted {
					life := a.Life
					time.AfterFunc(time.Duration(random.IntN(2000))*time.Microsecond, func() { life.End(nil) })
					life.Retire()
				}
				fault := e.RoundTrip(a)
				if fault == nil {
					text, err := io.ReadAll(a.Answer)
					if got, _ := a.Response.Fields.Lookup("X-Target"); got != target || err == nil && !bytes.Equal(text, body) || err != nil && !aborted {
						t.Errorf("%s got the answer of %s: %d bytes of %d, %v", target, got, len(text), len(body), err)
					}
				} else if !aborted {
					t.Error(fault)
				}
				a.End()
			}
		})
	}
	all.Wait()
}
