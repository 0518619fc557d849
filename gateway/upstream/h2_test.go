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

// TestH2GoAwayAtOnce: an endpoint that closes each connection before a request does not keep an attempt for ever.
func TestH2GoAwayAtOnce(t *testing.T) {
	peer := newH2Peer(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c := range peer.conns {
			_ = c.WriteGoAway(0, http2.ErrCodeNo, nil)
		}
	}()
	fault := askGet(t, h2Endpoint(t, peer.addr)).fails(t)
	if fault.Kind != exchange.UpstreamReset || !fault.Retryable {
		t.Errorf("got %v", fault)
	}
	close(peer.conns)
	<-done
	peer.conns = make(chan *h2PeerConn, 100)
}

// TestH2Faults: what an endpoint may do in place of a sound answer to an ordinary request, and what becomes of the connection.
func TestH2Faults(t *testing.T) {
	tests := map[string]struct {
		script func(*h2PeerConn)
		want   exchange.Kind
		text   string
		retry  bool
		lives  bool // the connection goes on
	}{
		"refused stream":    {func(c *h2PeerConn) { _ = c.WriteRSTStream(1, http2.ErrCodeRefusedStream) }, exchange.UpstreamReset, "REFUSED_STREAM", true, true},
		"reset":             {func(c *h2PeerConn) { _ = c.WriteRSTStream(1, http2.ErrCodeInternal) }, exchange.UpstreamReset, "INTERNAL_ERROR", false, true},
		"reset without why": {func(c *h2PeerConn) { _ = c.WriteRSTStream(1, http2.ErrCodeNo) }, exchange.UpstreamReset, "NO_ERROR", false, true},
		"refused after interim": {func(c *h2PeerConn) {
			c.head(1, false, ":status", "103")
			_ = c.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		}, exchange.UpstreamReset, "REFUSED_STREAM", true, true},
		"closed":         {func(c *h2PeerConn) { _ = c.Conn.Close() }, exchange.UpstreamReset, "", false, false},
		"DATA first":     {func(c *h2PeerConn) { _ = c.WriteData(1, false, []byte("x")) }, exchange.UpstreamProtocol, "DATA before", false, true},
		"101":            {func(c *h2PeerConn) { c.head(1, false, ":status", "101") }, exchange.UpstreamProtocol, "101", false, true},
		"no status":      {func(c *h2PeerConn) { c.head(1, false, "a", "b") }, exchange.UpstreamProtocol, "no status", false, true},
		"a request":      {func(c *h2PeerConn) { c.head(1, false, ":method", "GET") }, exchange.UpstreamProtocol, "out of place", false, true},
		"line break":     {func(c *h2PeerConn) { c.head(1, false, ":status", "200", "a", "b\r\nc: d") }, exchange.UpstreamProtocol, "value of the field", false, true},
		"interim end":    {func(c *h2PeerConn) { c.head(1, true, ":status", "103") }, exchange.UpstreamProtocol, "interim", false, true},
		"two lengths":    {func(c *h2PeerConn) { c.head(1, false, ":status", "200", "content-length", "1", "content-length", "1") }, exchange.UpstreamProtocol, "content-length", false, true},
		"large head":     {func(c *h2PeerConn) { c.largeHead(1) }, exchange.UpstreamProtocol, "response headers exceeded", false, true},
		"another stream": {func(c *h2PeerConn) { c.head(3, false, ":status", "200") }, exchange.UpstreamProtocol, "stream 3", false, false},
		"even stream":    {func(c *h2PeerConn) { c.head(2, false, ":status", "200") }, exchange.UpstreamProtocol, "stream 2", false, false},
		"reset of none":  {func(c *h2PeerConn) { _ = c.WriteRSTStream(9, http2.ErrCodeCancel) }, exchange.UpstreamProtocol, "stream 9", false, false},
		"frame size 0": {func(c *h2PeerConn) { _ = c.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 0}) }, exchange.UpstreamProtocol,
			"SETTINGS_MAX_FRAME_SIZE", false, false},
		"huge window": {func(c *h2PeerConn) {
			_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		},
			exchange.UpstreamProtocol, "SETTINGS_INITIAL_WINDOW_SIZE", false, false},
		"push on": {func(c *h2PeerConn) { _ = c.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}) },
			exchange.UpstreamProtocol, "SETTINGS_ENABLE_PUSH", false, false},
		"window of the stream": {func(c *h2PeerConn) { _ = c.WriteWindowUpdate(1, 1<<31-1) }, exchange.UpstreamProtocol, "beyond its bound", false, true},
		"no window update":     {func(c *h2PeerConn) { _ = c.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4)) }, exchange.UpstreamProtocol, "increment of 0", false, true},
		"not HTTP/2 any more":  {func(c *h2PeerConn) { _, _ = io.WriteString(c.Conn, "HTTP/1.1 400 Bad Request\r\n\r\n") }, exchange.UpstreamProtocol, "", false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			peer := newH2Peer(t)
			e := h2Endpoint(t, peer.addr)
			r := askGet(t, e)
			c := peer.conn()
			c.next(http2.FrameHeaders)
			tt.script(c)
			fault := r.fails(t)
			if fault.Kind != tt.want || fault.Retryable != tt.retry || !strings.Contains(fault.Error(), tt.text) {
				t.Errorf("got %v, retryable %v; want %s with %q, %v", fault, fault.Retryable, tt.want, tt.text, tt.retry)
			}
			if !tt.lives {
				c.ends()
				return
			}
			after := askGet(t, e)
			seen := c.next(http2.FrameHeaders)
			c.answer(seen.stream, "after")
			after.wants(t, "after")
		})
	}
}

// largeHead sends a head over the limit in frames that are not.
func (c *h2PeerConn) largeHead(stream uint32) {
	b := block(":status", "200", "a", strings.Repeat("a", 100<<10), "b", strings.Repeat("a", 100<<10), "c", strings.Repeat("a", 100<<10))
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b[:16<<10]})
	for b = b[16<<10:]; len(b) > 0; {
		n := min(len(b), 16<<10)
		_ = c.WriteContinuation(stream, n == len(b), b[:n])
		b = b[n:]
	}
}

// TestH2BrokenBody: an answer that breaks off, or is not as long as it says, is never taken for a whole one.
func TestH2BrokenBody(t *testing.T) {
	tests := map[string]struct {
		script func(*h2PeerConn)
		length string
		want   exchange.Kind
	}{
		"reset":             {func(c *h2PeerConn) { _ = c.WriteRSTStream(1, http2.ErrCodeInternal) }, "", exchange.UpstreamReset},
		"closed":            {func(c *h2PeerConn) { _ = c.Conn.Close() }, "", exchange.UpstreamReset},
		"short":             {func(c *h2PeerConn) { _ = c.WriteData(1, true, nil) }, "10", exchange.UpstreamProtocol},
		"short, trailers":   {func(c *h2PeerConn) { c.head(1, true, "x", "y") }, "10", exchange.UpstreamProtocol},
		"long":              {func(c *h2PeerConn) { _ = c.WriteData(1, true, []byte("defg")) }, "5", exchange.UpstreamProtocol},
		"second head":       {func(c *h2PeerConn) { c.head(1, false, ":status", "200") }, "", exchange.UpstreamProtocol},
		"malformed trailer": {func(c *h2PeerConn) { c.head(1, true, ":status", "200") }, "", exchange.UpstreamProtocol},
		"GOAWAY, then gone": {func(c *h2PeerConn) {
			_ = c.WriteGoAway(1, http2.ErrCodeInternal, nil)
			_ = c.Conn.Close()
		}, "", exchange.UpstreamReset},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			peer := newH2Peer(t)
			r := askGet(t, h2Endpoint(t, peer.addr))
			c := peer.conn()
			c.next(http2.FrameHeaders)
			fields := []string{":status", "200"}
			if tt.length != "" {
				fields = append(fields, "content-length", tt.length)
			}
			c.head(1, false, fields...)
			_ = c.WriteData(1, false, []byte("abc"))
			if fault := receive(t, r.fault, "the head"); fault != nil {
				t.Fatal(fault)
			}
			defer r.end()
			first := make([]byte, 3)
			if _, err := io.ReadFull(r.a.Answer, first); err != nil {
				t.Fatal(err)
			}
			tt.script(c)
			rest, err := io.ReadAll(r.a.Answer)
			if err == nil || len(rest) > 0 || exchange.AsFault(err, "").Kind != tt.want {
				t.Errorf("got %q, %v, want %s", rest, err, tt.want)
			}
		})
	}
}

// TestH2Bodiless: what has no body has none, whatever its length says.
func TestH2Bodiless(t *testing.T) {
	tests := map[string]struct {
		method string
		end    bool
		fields []string
		length int64
		data   string
		bad    bool
	}{
		"HEAD":            {"HEAD", true, []string{":status", "200", "content-length", "12"}, 12, "", false},
		"HEAD, no length": {"HEAD", true, []string{":status", "200"}, -1, "", false},
		"HEAD, late end":  {"HEAD", false, []string{":status", "200", "content-length", "12"}, 12, "", false},
		"HEAD with body":  {"HEAD", false, []string{":status", "200", "content-length", "1"}, 1, "x", true},
		"304":             {"GET", true, []string{":status", "304", "content-length", "12"}, 12, "", false},
		"204":             {"GET", true, []string{":status", "204"}, 0, "", false},
		"204 with body":   {"GET", false, []string{":status", "204"}, 0, "x", true},
		"ends at once":    {"GET", true, []string{":status", "200"}, 0, "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			peer := newH2Peer(t)
			r := ask(h2Endpoint(t, peer.addr), request(t, tt.method, "/"), exchange.NoBody)
			c := peer.conn()
			c.next(http2.FrameHeaders)
			c.head(1, tt.end, tt.fields...)
			if !tt.end {
				_ = c.WriteData(1, true, []byte(tt.data))
			}
			if fault := receive(t, r.fault, "the head"); fault != nil {
				t.Fatal(fault)
			}
			defer r.end()
			text, err := io.ReadAll(r.a.Answer)
			if len(text) > 0 || (err != nil) != tt.bad || r.a.Answer.Length() != tt.length {
				t.Errorf("got %q, %v, length %d", text, err, r.a.Answer.Length())
			}
		})
	}
}

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
		conf := cluster()
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

// TestH2Floods: what costs the endpoint little and the gateway more has a bound. The connection ends, and the attempt with it.
func TestH2Floods(t *testing.T) {
	floods := map[string]func(*h2PeerConn) error{
		"PING":            func(c *h2PeerConn) error { return c.WritePing(false, [8]byte{}) },
		"PING answers":    func(c *h2PeerConn) error { return c.WritePing(true, [8]byte{}) },
		"SETTINGS":        func(c *h2PeerConn) error { return c.WriteSettings() },
		"SETTINGS acks":   func(c *h2PeerConn) error { return c.WriteSettingsAck() },
		"empty DATA":      func(c *h2PeerConn) error { return c.WriteData(1, false, nil) },
		"padding":         func(c *h2PeerConn) error { return c.WriteDataPadded(1, false, nil, make([]byte, 200)) },
		"PRIORITY":        func(c *h2PeerConn) error { return c.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"unknown":         func(c *h2PeerConn) error { return c.WriteRawFrame(0xbe, 0, 1, nil) },
		"WINDOW_UPDATE":   func(c *h2PeerConn) error { return c.WriteWindowUpdate(1, 1) },
		"GOAWAY":          func(c *h2PeerConn) error { return c.WriteGoAway(1, http2.ErrCodeNo, nil) },
		"reset of closed": func(c *h2PeerConn) error { return c.WriteRSTStream(1, http2.ErrCodeNo) },
	}
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			peer := newH2Peer(t)
			r := askGet(t, h2Endpoint(t, peer.addr))
			c := peer.conn()
			c.next(http2.FrameHeaders)
			if name == "reset of closed" {
				_ = c.WriteRSTStream(1, http2.ErrCodeCancel)
			} else {
				c.head(1, false, ":status", "200")
			}
			fault := receive(t, r.fault, "the head")
			if name == "reset of closed" {
				if fault == nil {
					t.Error("a reset is no fault")
				}
				r.end()
			} else if fault != nil {
				t.Fatal(fault)
			}
			go func() {
				for flood(c) == nil { // until the connection ends
				}
			}()
			// Nobody can be told anything behind answers that it does not read.
			if code := c.ends(); code != http2.ErrCodeEnhanceYourCalm && name != "PING" && name != "SETTINGS" {
				t.Errorf("the connection ended with %v", code)
			}
			if name == "reset of closed" {
				return
			}
			if _, err := io.ReadAll(r.a.Answer); err == nil || exchange.AsFault(err, "").Kind != exchange.UpstreamProtocol {
				t.Errorf("got %v", err)
			}
			r.end()
		})
	}
}

// TestH2SlowClient: an answer that nobody reads holds up no other on the connection, and is buffered up to its window.
func TestH2SlowClient(t *testing.T) {
	const size = 2 << 20
	e := h2Endpoint(t, newOrigin(t, originOptions{protocols: h2c}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(bytesOf(size))
	}).addr)
	var slow []*asking
	for range 20 {
		r := askGet(t, e)
		if fault := receive(t, r.fault, "the head"); fault != nil {
			t.Fatal(fault)
		}
		slow = append(slow, r)
	}
	askGet(t, e).wants(t, string(bytesOf(size)))
	for _, r := range slow {
		if n, _ := r.a.Answer.(exchange.Ready).Ready(); n > h2Window {
			t.Errorf("%d bytes are buffered", n)
		}
		r.end()
	}
	if n := len(e.client.h2.conns); n != 1 {
		t.Errorf("%d connections", n)
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

// TestH2NotReading: an endpoint that takes nothing is given up, and an attempt that ends meanwhile does not wait for it.
func TestH2NotReading(t *testing.T) {
	release := make(chan struct{})
	e := h2Endpoint(t, framing(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}}, func(f *framed) {
		_ = f.WriteWindowUpdate(0, 1<<31-1-65535)
		<-release
	}))
	defer close(release)
	upload := ask(e, request(t, "POST", "/"), streamed(make([]byte, 64<<20))) // more than sockets hold
	m := e.client.h2
	for !m.writesForLong() {
		time.Sleep(time.Millisecond) // nothing signals that a write does not end
	}
	other := askGet(t, e)
	other.life.End(nil)
	if fault := other.fails(t); fault.Kind != exchange.ClientAborted {
		t.Errorf("got %v", fault)
	}
	for range int(writeTimeout/tickPeriod) + 2 {
		m.tick(time.Time{})
	}
	if fault := upload.fails(t); fault.Kind != exchange.UpstreamReset {
		t.Errorf("got %v", fault)
	}
}

// writesForLong reports whether a write is under way and has been for a while.
func (m *h2Mux) writesForLong() bool {
	m.mu.Lock()
	conns := slices.Clone(m.conns)
	m.mu.Unlock()
	if len(conns) == 0 {
		return false
	}
	before := conns[0].out.Progress()
	time.Sleep(50 * time.Millisecond)
	return before&1 == 1 && conns[0].out.Progress() == before
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

// FuzzH2Endpoint gives attempts whatever bytes an endpoint may send. They must come to an end, with a sound answer or a Fault.
func FuzzH2Endpoint(f *testing.F) {
	seed := func(script func(*http2.Framer)) {
		var b bytes.Buffer
		framer := http2.NewFramer(&b, nil)
		_ = framer.WriteSettings(takesConnect)
		script(framer)
		f.Add(b.Bytes())
	}
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	seed(func(w *http2.Framer) {
		head := block(":status", "200", "a", "b")
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head[:2]})
		_ = w.WriteContinuation(1, true, head[2:])
		_ = w.WriteDataPadded(1, true, []byte("data"), make([]byte, 3))
		_ = w.WriteWindowUpdate(1, 9)
	})
	seed(func(w *http2.Framer) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block(":status", "403", "content-length", "4"), EndHeaders: true})
		_ = w.WritePing(false, [8]byte{1})
		_ = w.WriteData(3, true, []byte("data"))
		_ = w.WriteGoAway(1, http2.ErrCodeNo, nil)
	})
	seed(func(w *http2.Framer) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "103"), EndHeaders: true})
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200"), EndHeaders: true})
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block("x", "y"), EndHeaders: true, EndStream: true})
		_ = w.WriteRSTStream(3, http2.ErrCodeCancel)
	})
	peer := newRawPeer(f)
	e := h2Endpoint(f, peer.addr)
	f.Fuzz(func(t *testing.T, sent []byte) {
		peer.send.Store(&sent)
		plain := ask(e, request(t, "POST", "/"), streamed([]byte("body")))
		connect := ask(e, switchHead(t, "CONNECT", "websocket"), exchange.NoBody)
		for _, r := range []*asking{plain, connect} {
			fault := receive(t, r.fault, "an answer or a fault")
			switch {
			case fault != nil && fault.Kind == "":
				t.Errorf("no kind: %v", fault)
			case fault == nil && r.a.Tunnel != nil:
				_, _ = io.Copy(io.Discard, r.a.Tunnel)
			case fault == nil:
				if r.a.Response.Status < 200 || r.a.Response.Status > 999 {
					t.Errorf("status %d", r.a.Response.Status)
				}
				n, err := io.Copy(io.Discard, r.a.Answer)
				if length := r.a.Answer.Length(); err == nil && length >= 0 && n != length && r.a.Response.Status != 304 {
					t.Errorf("%d bytes of %d", n, length)
				}
			}
			r.end()
		}
	})
}
