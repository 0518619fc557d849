package upstream

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

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
