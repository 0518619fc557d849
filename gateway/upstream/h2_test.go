package upstream

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TestH2Table compares with a map, as streams come and go in the order in which they do.
func TestH2Table(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var table h2Table
	want := map[uint32]*h2Stream{}
	id := uint32(1)
	for range 20_000 {
		if len(want) < 100 && random.IntN(2) == 0 {
			s := &h2Stream{}
			table.put(id, s)
			want[id] = s
			id += 2
		}
		for k := range want {
			if random.IntN(3) == 0 && k%64 != 1 { // some stay for long
				table.remove(k)
				delete(want, k)
			}
			break
		}
		table.remove(id + 100) // not there
		if table.count != len(want) || len(table.all()) != len(want) || len(table.places) > 4096 {
			t.Fatalf("%d streams, want %d; %d places", table.count, len(want), len(table.places))
		}
		for k, s := range want {
			if table.get(k) != s {
				t.Fatalf("stream %d is lost", k)
			}
		}
		if table.get(id) != nil || table.get(2) != nil {
			t.Fatal("a stream that is not there was found")
		}
		if len(want) > 90 {
			clear(want)
			table = h2Table{}
		}
	}
}

// TestH2Streams: attempts share a connection as far as the endpoint allows; then there are more connections.
func TestH2Streams(t *testing.T) {
	peer := newH2Peer(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3})
	e := h2Endpoint(t, peer.addr)
	first := askPath(t, e, "/1")
	c := peer.conn()
	seen := []h2Seen{c.next(http2.FrameHeaders)}
	if seen[0].stream != 1 || !seen[0].ended() || seen[0].field(":method") != "GET" {
		t.Fatalf("got %+v", seen[0])
	}
	second, third := askPath(t, e, "/2"), askPath(t, e, "/3")
	for _, want := range []uint32{3, 5} {
		got := c.next(http2.FrameHeaders)
		if got.stream != want {
			t.Fatalf("got stream %d", got.stream)
		}
		seen = append(seen, got)
	}
	fourth := askPath(t, e, "/4")
	other := peer.conn()
	got := other.next(http2.FrameHeaders)
	if got.stream != 1 {
		t.Fatalf("got stream %d", got.stream)
	}
	other.echoPath(got)
	fourth.wants(t, "/4")
	slices.Reverse(seen) // answers may come in any order
	for _, got := range seen {
		c.echoPath(got)
	}
	for i, r := range []*asking{first, second, third} {
		r.wants(t, fmt.Sprint("/", i+1))
	}
	fifth := askPath(t, e, "/5")
	on := receiveAny(t, c, other)
	on.conn.echoPath(on.h2Seen)
	fifth.wants(t, "/5")
	if len(peer.conns) > 0 {
		t.Error("there are more connections than are needed")
	}
}

// seenOn is a request and the connection that it came on.
type seenOn struct {
	h2Seen
	conn *h2PeerConn
}

// receiveAny waits for a request on any of the connections.
func receiveAny(t *testing.T, conns ...*h2PeerConn) seenOn {
	t.Helper()
	found := make(chan seenOn, len(conns))
	stop := make(chan struct{})
	defer close(stop)
	for _, c := range conns {
		go func() {
			for {
				select {
				case seen, ok := <-c.seen:
					if !ok {
						return
					}
					if seen.kind == http2.FrameHeaders {
						found <- seenOn{seen, c}
						return
					}
				case <-stop:
					return
				}
			}
		}()
	}
	return receive(t, found, "a request")
}

// TestH2SingleDial: attempts that come at once wait for one connection, and those over its streams for more.
func TestH2SingleDial(t *testing.T) {
	peer := newH2Peer(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 10})
	e := h2Endpoint(t, peer.addr)
	const all = 45
	var asked []*asking
	for range all {
		asked = append(asked, askGet(t, e))
	}
	requests := make(chan seenOn, all)
	for range (all + 9) / 10 {
		c := peer.conn()
		go func() {
			for seen := range c.seen {
				if seen.kind == http2.FrameHeaders {
					requests <- seenOn{seen, c}
				}
			}
		}()
	}
	for range all {
		receive(t, requests, "a request")
	}
	if len(peer.conns) > 0 {
		t.Errorf("%d connections more than are needed", len(peer.conns))
	}
	for _, r := range asked[:20] { // whoever it is, it is alone in that
		r.life.End(nil)
	}
	for _, r := range asked[:20] {
		if fault := r.fails(t); fault.Kind != exchange.ClientAborted {
			t.Errorf("got %v", fault)
		}
	}
	for _, r := range asked[20:] {
		r.life.End(exchange.NewFault(exchange.RequestTimeout, nil))
		if fault := r.fails(t); fault.Kind != exchange.RequestTimeout {
			t.Errorf("got %v", fault)
		}
	}
}

// TestH2DialFails: all that wait get the fault, and the next attempt dials anew.
func TestH2DialFails(t *testing.T) {
	e := h2Endpoint(t, closedPort(t))
	for range 2 {
		var asked []*asking
		for range 5 {
			asked = append(asked, askGet(t, e))
		}
		for _, r := range asked {
			if fault := r.fails(t); fault.Kind != exchange.UpstreamConnect || !fault.Retryable {
				t.Errorf("got %v", fault)
			}
		}
	}
}

// TestH2NoStreams: an endpoint that allows none for now gets no other connection; when it allows some they are used.
func TestH2NoStreams(t *testing.T) {
	peer := newH2Peer(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
	e := h2Endpoint(t, peer.addr)
	r := askGet(t, e)
	c := peer.conn()
	c.next(http2.FrameSettings)
	c.next(http2.FrameSettings) // the acknowledgement: it knows
	waitsInLine(e, 1)
	another := askGet(t, e)
	waitsInLine(e, 2)
	_ = c.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
	for range 2 {
		seen := c.next(http2.FrameHeaders)
		c.answer(seen.stream, "one")
	}
	r.wants(t, "one")
	another.wants(t, "one")
	if len(peer.conns) > 0 {
		t.Error("another connection was opened")
	}
	_ = c.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
	_ = c.WritePing(false, [8]byte{1})
	c.next(http2.FramePing)
	waiting := askGet(t, e)
	waitsInLine(e, 1)
	m := e.client.h2
	m.dialer.upkeep.ticks.Add(uint32(maxH2Wait/tickPeriod) + 1)
	m.tick(time.Time{})
	if fault := waiting.fails(t); fault.Kind != exchange.UpstreamConnect || !fault.Retryable || !strings.Contains(fault.Error(), "no stream") {
		t.Errorf("got %v", fault)
	}
	aborted := askGet(t, e)
	waitsInLine(e, 1)
	aborted.life.End(nil)
	if fault := aborted.fails(t); fault.Kind != exchange.ClientAborted {
		t.Errorf("got %v", fault)
	}
	if m.waiting.Load() != 0 || m.first != nil || m.last != nil {
		t.Error("somebody is still in line")
	}
}

// TestH2NoStreamsEver: an endpoint that takes connections, allows no streams and closes is not dialled again and again.
func TestH2NoStreamsEver(t *testing.T) {
	peer := newRawPeer(t)
	var hello bytes.Buffer
	_ = http2.NewFramer(&hello, nil).WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
	b := hello.Bytes()
	peer.send.Store(&b)
	if fault := askGet(t, h2Endpoint(t, peer.addr)).fails(t); fault.Kind != exchange.UpstreamReset || !fault.Retryable {
		t.Errorf("got %v", fault)
	}
	if n := peer.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// waitsInLine returns when n wait for a stream.
func waitsInLine(e *Endpoint, n int32) {
	for e.client.h2.waiting.Load() < n {
		time.Sleep(time.Millisecond) // nothing signals that somebody waits
	}
}

// TestH2GoAway: streams that the endpoint did not look at may be sent again, the others go on, and new ones get a connection of their own.
func TestH2GoAway(t *testing.T) {
	peer := newH2Peer(t)
	e := h2Endpoint(t, peer.addr)
	first := askGet(t, e)
	c := peer.conn()
	c.next(http2.FrameHeaders)
	second, third := askGet(t, e), askGet(t, e)
	c.next(http2.FrameHeaders)
	c.next(http2.FrameHeaders)
	_ = c.WriteGoAway(1, http2.ErrCodeNo, nil)
	for _, r := range []*asking{second, third} {
		if fault := r.fails(t); fault.Kind != exchange.UpstreamReset || !fault.Retryable || !strings.Contains(fault.Error(), "GOAWAY") {
			t.Errorf("got %v", fault)
		}
	}
	again := askGet(t, e)
	other := peer.conn()
	other.next(http2.FrameHeaders)
	other.answer(1, "again")
	again.wants(t, "again")
	c.answer(1, "first")
	first.wants(t, "first")
	if code := c.ends(); code != http2.ErrCodeNo {
		t.Errorf("the connection ended with %v", code)
	}
}

// TestH2Stale: a kept connection that ends without an answer costs a request that may be processed twice nothing.
func TestH2Stale(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		body   exchange.Body
		fresh  bool // the first request of its connection
		again  bool
	}{
		"GET":              {"GET", exchange.NoBody, false, true},
		"POST":             {"POST", exchange.NoBody, false, false},
		"GET with a body":  {"GET", exchange.Bytes([]byte("x")), false, false},
		"a new connection": {"GET", exchange.NoBody, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			peer := newH2Peer(t)
			e := h2Endpoint(t, peer.addr)
			var c *h2PeerConn
			if !tt.fresh {
				first := askPath(t, e, "/1")
				c = peer.conn()
				c.echoPath(c.next(http2.FrameHeaders))
				first.wants(t, "/1")
			}
			r := ask(e, request(t, tt.method, "/2"), tt.body)
			if tt.fresh {
				c = peer.conn()
			}
			c.next(http2.FrameHeaders)
			_ = c.Conn.Close()
			if !tt.again {
				if fault := r.fails(t); fault.Kind != exchange.UpstreamReset || fault.Retryable {
					t.Errorf("got %v", fault)
				}
				return
			}
			other := peer.conn()
			other.echoPath(other.next(http2.FrameHeaders))
			r.wants(t, "/2")
		})
	}
}

// TestH2GoAwayAtOnce: an endpoint that closes a connection before a request goes out costs the request nothing, unless it always does so.
func TestH2GoAwayAtOnce(t *testing.T) {
	for name, always := range map[string]bool{"once": false, "always": true} {
		t.Run(name, func(t *testing.T) {
			const body = "in memory"
			answered := make(chan string, 1)
			var connections atomic.Int32
			addr := scripted(t, func(c net.Conn) {
				_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
				framer := http2.NewFramer(c, c)
				var hello bytes.Buffer // in one write: the GOAWAY is there before the request can be sent
				first := http2.NewFramer(&hello, nil)
				_ = first.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
				_ = first.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
				if connections.Add(1) == 1 || always {
					_ = first.WriteGoAway(0, http2.ErrCodeNo, nil)
				}
				_, _ = c.Write(hello.Bytes())
				for {
					frame, err := framer.ReadFrame()
					if err != nil {
						return
					}
					if data, ok := frame.(*http2.DataFrame); ok {
						answered <- string(data.Data())
						_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200"), EndStream: true, EndHeaders: true})
					}
				}
			})
			r := ask(h2Endpoint(t, addr), request(t, "POST", "/"), exchange.Bytes([]byte(body)))
			if always {
				if fault := r.fails(t); fault.Kind != exchange.UpstreamReset || !fault.Retryable {
					t.Errorf("got %v", fault)
				}
				return
			}
			r.wants(t, "")
			if got := receive(t, answered, "the body"); got != body {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestH2Alive: an endpoint that is silent is asked whether it lives, and given up when it does not answer. One without streams is not asked, and
// closed when it was idle for long.
func TestH2Alive(t *testing.T) {
	peer := newH2Peer(t)
	e := h2Endpoint(t, peer.addr)
	r := askGet(t, e)
	c := peer.conn()
	c.next(http2.FrameHeaders)
	m := e.client.h2
	later := func(d time.Duration) {
		m.dialer.upkeep.ticks.Add(uint32(d / tickPeriod))
		m.tick(time.Time{})
	}
	later(pingAfter)
	if got := c.next(http2.FramePing); got.flags.Has(http2.FlagPingAck) || got.data != string(alivePing[:]) {
		t.Errorf("got %+v", got)
	}
	_ = c.WritePing(true, alivePing)
	c.answer(1, "alive")
	r.wants(t, "alive")
	later(pingAfter + pingTimeout)
	silent := askGet(t, e)
	c.next(http2.FrameHeaders)
	later(pingAfter)
	c.next(http2.FramePing)
	later(pingTimeout)
	if fault := silent.fails(t); fault.Kind != exchange.UpstreamReset || !strings.Contains(fault.Error(), "PING") {
		t.Errorf("got %v", fault)
	}
	c.ends()
	again := askGet(t, e)
	other := peer.conn()
	other.next(http2.FrameHeaders)
	other.answer(1, "again")
	again.wants(t, "again")
	later(IdleTimeout)
	later(time.Second)
	if code := other.ends(); code != http2.ErrCodeNo {
		t.Errorf("the connection ended with %v", code)
	}
}

// TestH2Retire: a connection without streams closes, one with streams when they end.
func TestH2Retire(t *testing.T) {
	peer := newH2Peer(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	conf := cluster(peer.addr)
	conf.Protocol = config.UpstreamH2C
	lease, _ := newManager(t, Options{}).Apply([]*config.Cluster{conf})
	e := lease.Cluster("c").set.Load().list[0]
	one, two := askGet(t, e), askGet(t, e)
	busy, idle := peer.conn(), peer.conn()
	busy.next(http2.FrameHeaders)
	idle.next(http2.FrameHeaders)
	idle.answer(1, "x")
	finished := make(chan *asking, 2)
	for _, r := range []*asking{one, two} {
		go func() {
			if fault := <-r.fault; fault == nil {
				finished <- r
			}
		}()
	}
	first := receive(t, finished, "an answer")
	_, _ = io.ReadAll(first.a.Answer)
	first.end()
	lease.Release()
	idle.ends()
	busy.answer(1, "y")
	second := receive(t, finished, "an answer")
	if text, err := io.ReadAll(second.a.Answer); string(text) != "y" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	second.end()
	busy.ends()
}

// TestH2ChoosesH1: an endpoint of an HTTP/2 cluster may choose HTTP/1.1. The connection that it chose it on is used, and the choice remembered.
func TestH2ChoosesH1(t *testing.T) {
	ca := newCA(t)
	var holding sync.WaitGroup
	holding.Add(5)
	o := newOrigin(t, originOptions{protocols: h1Only, tls: &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "endpoint.test", "", nil)}}},
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hold" {
				holding.Done()
				holding.Wait()
			}
			_, _ = fmt.Fprint(w, r.Proto)
		})
	conf := cluster(o.addr)
	conf.Protocol, conf.TLS = config.UpstreamHTTP2, &config.UpstreamTLS{ServerName: "endpoint.test", CAs: ca.pem}
	c := single(t, conf)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			a, fault := send(t.Context(), c, &Attempt{Request: request(t, "GET", "/hold"), Body: exchange.NoBody})
			if fault != nil {
				t.Error(fault)
				return
			}
			text, _ := io.ReadAll(a.Body)
			if string(text) != "HTTP/1.1" {
				t.Errorf("got %q", text)
			}
			_ = a.Body.Close()
		})
	}
	all.Wait()
	if got := get(t, c); got != "HTTP/1.1" {
		t.Errorf("got %q", got)
	}
	if n := o.opened.Load(); n != 5 {
		t.Errorf("%d connections for 5 requests at once", n)
	}
}
