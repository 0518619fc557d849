package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// framed is an endpoint's end of an HTTP/2 connection, frame by frame.
type framed struct {
	*http2.Framer
	conn    net.Conn
	request *http2.MetaHeadersFrame
}

var takesConnect = http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}

// framing is an HTTP/2 endpoint below its semantics: script gets each connection once a request is there, which is then dropped.
func framing(t *testing.T, settings []http2.Setting, script func(*framed)) netip.AddrPort {
	t.Helper()
	return scripted(t, func(c net.Conn) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
			return
		}
		f := &framed{Framer: http2.NewFramer(c, c), conn: c}
		f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if f.WriteSettings(settings...) != nil {
			return
		}
		if headers, ok := next[*http2.MetaHeadersFrame](f); ok {
			f.request = headers
			script(f)
		}
	})
}

// next reads on to a frame of this type; ok is false when the connection ended.
func next[T http2.Frame](f *framed) (frame T, ok bool) {
	for {
		got, err := f.ReadFrame()
		if err != nil {
			return frame, false
		}
		if frame, ok = got.(T); ok {
			return frame, true
		}
	}
}

// take reads n bytes of DATA and reports how many came, -1 when the connection ended.
func (f *framed) take(n int) (got int) {
	for got < n {
		data, ok := next[*http2.DataFrame](f)
		if !ok {
			return -1
		}
		got += len(data.Data())
	}
	return got
}

func block(pairs ...string) []byte {
	var b bytes.Buffer
	encoder := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}

// respond sends a response head.
func (f *framed) respond(end bool, pairs ...string) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(pairs...), EndStream: end, EndHeaders: true})
}

func (f *framed) drain() { _, _ = io.Copy(io.Discard, f.conn) }

// dialConnect asks an h2c endpoint for a tunnel.
func dialConnect(ctx context.Context, t *testing.T, addr netip.AddrPort, fields ...string) (*Answer, *exchange.Fault) {
	t.Helper()
	conf := cluster(addr)
	conf.Protocol = config.UpstreamH2C
	a, fault := send(ctx, single(t, conf), &Attempt{Request: switchHead(t, "CONNECT", "websocket", fields...), Body: exchange.NoBody})
	if a != nil && a.Tunnel != nil {
		t.Cleanup(func() { _ = a.Tunnel.Close() })
	}
	return a, fault
}

func openTunnel(ctx context.Context, t *testing.T, addr netip.AddrPort) exchange.Stream {
	t.Helper()
	a, fault := dialConnect(ctx, t, addr)
	if fault != nil {
		t.Fatal(fault)
	}
	if a.Tunnel == nil {
		t.Fatalf("got %d and no tunnel", a.Response.Status)
	}
	return a.Tunnel
}

// TestConnectFaults: what an endpoint may do in place of a sound answer.
func TestConnectFaults(t *testing.T) {
	ok := []http2.Setting{takesConnect}
	raw := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) func(*framed) {
		return func(f *framed) { _ = f.WriteRawFrame(kind, flags, stream, payload) }
	}
	answer := func(pairs ...string) func(*framed) { return func(f *framed) { f.respond(false, pairs...) } }
	tests := map[string]struct {
		script func(*framed)
		want   exchange.Kind
		text   string
		retry  bool
	}{
		"GOAWAY before the request": {func(f *framed) { _ = f.WriteGoAway(0, http2.ErrCodeNo, nil) }, exchange.UpstreamReset, "GOAWAY", true},
		"refused stream":            {func(f *framed) { _ = f.WriteRSTStream(1, http2.ErrCodeRefusedStream) }, exchange.UpstreamReset, "REFUSED_STREAM", true},
		"reset":                     {func(f *framed) { _ = f.WriteRSTStream(1, http2.ErrCodeInternal) }, exchange.UpstreamReset, "INTERNAL_ERROR", false},
		"closed":                    {func(f *framed) { _ = f.conn.(*net.TCPConn).CloseWrite() }, exchange.UpstreamReset, "EOF", false},
		"DATA first":                {func(f *framed) { _ = f.WriteData(1, false, []byte("x")) }, exchange.UpstreamProtocol, "DATA before", false},
		"101":                       {answer(":status", "101"), exchange.UpstreamProtocol, "101", false},
		"no status":                 {answer("a", "b"), exchange.UpstreamProtocol, "no status", false},
		"two statuses":              {answer(":status", "200", ":status", "200"), exchange.UpstreamProtocol, "out of place", false},
		"late status":               {answer("a", "b", ":status", "200"), exchange.UpstreamProtocol, "out of place", false},
		"malformed status":          {answer(":status", "+20"), exchange.UpstreamProtocol, "malformed status", false},
		"upper case":                {answer(":status", "200", "A", "b"), exchange.UpstreamProtocol, "field name", false},
		"line break":                {answer(":status", "200", "a", "b\r\nc: d"), exchange.UpstreamProtocol, "value of the field", false},
		"connection field":          {answer(":status", "200", "connection", "x"), exchange.UpstreamProtocol, "forbids", false},
		"another stream":            {raw(http2.FrameData, 0, 3, []byte("x")), exchange.UpstreamProtocol, "stream 3", false},
		"push":                      {raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, []byte{0, 0, 0, 2}), exchange.UpstreamProtocol, "PUSH_PROMISE", false},
		"broken HPACK":              {raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0xff, 0xff, 0xff}), exchange.UpstreamProtocol, "COMPRESSION_ERROR", false},
		"large frame":               {raw(http2.FrameData, 0, 1, make([]byte, 16<<10+1)), exchange.UpstreamProtocol, "FRAME_SIZE_ERROR", false},
		"empty window update":       {raw(http2.FrameWindowUpdate, 0, 0, []byte{0, 0, 0, 0}), exchange.UpstreamProtocol, "increment of 0", false},
		"window overflow":           {func(f *framed) { _ = f.WriteWindowUpdate(0, h2.MaxWindow) }, exchange.UpstreamProtocol, "beyond 2^31-1", false},
		"settings overflow": {func(f *framed) {
			_ = f.WriteWindowUpdate(1, 1000)
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2.MaxWindow})
		}, exchange.UpstreamProtocol, "beyond 2^31-1", false},
		"malformed setting": {func(f *framed) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1})
		}, exchange.UpstreamProtocol, "SETTINGS_MAX_FRAME_SIZE", false},
		"endless CONTINUATION": {func(f *framed) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200")})
			for range maxContinuations + 1 {
				_ = f.WriteContinuation(1, false, nil)
			}
		}, exchange.UpstreamProtocol, "CONTINUATION frames", false},
		"endless interim": {func(f *framed) {
			for range MaxResponseHeaderBytes / 40 {
				f.respond(false, ":status", "103")
			}
		}, exchange.UpstreamProtocol, "response headers exceeded", false},
		"a bomb": {func(f *framed) { // one long field, then its index again and again
			indexed := bytes.Repeat([]byte{0x80 | 62}, MaxResponseHeaderBytes/2000)
			b := slices.Concat(block(":status", "200", "a", strings.Repeat("a", 3900)), indexed)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b, EndHeaders: true})
		}, exchange.UpstreamProtocol, "response headers exceeded", false},
		"interim end":           {func(f *framed) { f.respond(true, ":status", "103") }, exchange.UpstreamProtocol, "interim", false},
		"bad refusal length":    {answer(":status", "403", "content-length", "-1"), exchange.UpstreamProtocol, "content-length", false},
		"two lengths":           {answer(":status", "403", "content-length", "1", "content-length", "1"), exchange.UpstreamProtocol, "content-length", false},
		"CONTINUATION of other": {raw(http2.FrameContinuation, 0, 1, nil), exchange.UpstreamProtocol, "CONTINUATION", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			addr := framing(t, ok, func(f *framed) {
				tt.script(f)
				f.drain()
			})
			_, fault := dialConnect(t.Context(), t, addr)
			if fault == nil || fault.Kind != tt.want || fault.Retryable != tt.retry || !strings.Contains(fault.Error(), tt.text) {
				t.Errorf("got %v, want %s with %q, retryable %v", fault, tt.want, tt.text, tt.retry)
			}
		})
	}
}

// TestConnectNotOffered: without the setting the request may not be sent (RFC 8441 3).
func TestConnectNotOffered(t *testing.T) {
	for name, settings := range map[string][]http2.Setting{
		"absent": nil, "off": {{ID: http2.SettingEnableConnectProtocol, Val: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Bool
			_, fault := dialConnect(t.Context(), t, framing(t, settings, func(*framed) { asked.Store(true) }))
			if fault == nil || fault.Kind != exchange.UpgradeUnsupported || !strings.Contains(fault.Error(), "does not offer extended CONNECT") {
				t.Errorf("got %v", fault)
			}
			if asked.Load() {
				t.Error("the request was sent all the same")
			}
		})
	}
	t.Run("HTTP/1.1 endpoint", func(t *testing.T) {
		_, fault := dialConnect(t.Context(), t, newOrigin(t, originOptions{}, hello).addr)
		if fault == nil || fault.Kind != exchange.UpstreamProtocol || !fault.Retryable {
			t.Errorf("got %v", fault)
		}
	})
}

// TestConnectRequest: what the endpoint gets, over as many frames as it takes.
func TestConnectRequest(t *testing.T) {
	seen := make(chan []hpack.HeaderField, 1)
	addr := framing(t, []http2.Setting{takesConnect, {ID: http2.SettingHeaderTableSize, Val: 0}}, func(f *framed) {
		seen <- slices.Clone(f.request.Fields)
		f.respond(false, ":status", "200")
		f.drain()
	})
	long := strings.Repeat("l", 50<<10)
	_, fault := dialConnect(t.Context(), t, addr, "Host", "h", "Content-Length", "0", "Connection", "X", "Upgrade", "websocket", "TE", "gzip",
		keyField, rfcKey, "Sec-WebSocket-Version", "13", "X-Long", long, "X-Two", "1", "x-two", "2")
	if fault != nil {
		t.Fatal(fault)
	}
	want := []hpack.HeaderField{
		{Name: ":method", Value: "CONNECT"}, {Name: ":protocol", Value: "websocket"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "www.example.com"}, {Name: ":path", Value: "/chat?a=1"},
		{Name: "sec-websocket-version", Value: "13"}, {Name: "x-long", Value: long}, {Name: "x-two", Value: "1"}, {Name: "x-two", Value: "2"},
	}
	if got := receive(t, seen, "the request"); !slices.Equal(got, want) {
		t.Errorf("got %.300v", got)
	}
}

// TestConnectRequestRefusedHere: what cannot be sent is not.
func TestConnectRequestRefusedHere(t *testing.T) {
	limited := []http2.Setting{takesConnect, {ID: http2.SettingMaxHeaderListSize, Val: 300}}
	tests := map[string]struct {
		name, value string
		want        exchange.Kind
	}{
		"name":  {"a b", "c", exchange.BadRequest},
		"value": {"a", "b\r\nc: d", exchange.BadRequest},
		"size":  {"a", strings.Repeat("a", 300), exchange.FieldsTooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, fault := dialConnect(t.Context(), t, framing(t, limited, (*framed).drain), tt.name, tt.value)
			if fault == nil || fault.Kind != tt.want {
				t.Errorf("got %v, want %s", fault, tt.want)
			}
		})
	}
}

// TestConnectFragmentedHead: a response head in frames of one byte, interim responses before and pings in between.
func TestConnectFragmentedHead(t *testing.T) {
	acked := make(chan [8]byte, 1)
	addr := framing(t, []http2.Setting{takesConnect}, func(f *framed) {
		f.respond(false, ":status", "100")
		f.respond(false, ":status", "103", "link", "x")
		_ = f.WritePing(false, [8]byte{7})
		b := block(":status", "200", "x-from", "endpoint", "content-length", "5")
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:1]})
		for i := 1; i < len(b); i++ {
			_ = f.WriteContinuation(1, i == len(b)-1, b[i:i+1])
		}
		if ping, ok := next[*http2.PingFrame](f); ok && ping.IsAck() {
			acked <- ping.Data
		}
		f.drain()
	})
	conf := cluster(addr)
	conf.Protocol = config.UpstreamH2C
	var interim []int
	a, fault := send(t.Context(), single(t, conf), &Attempt{
		Request: switchHead(t, "CONNECT", "websocket"), Body: exchange.NoBody,
		Inform: informed(func(status int, fields exchange.Fields) { interim = append(interim, status) }),
	})
	if fault != nil {
		t.Fatal(fault)
	}
	defer a.Tunnel.Close()
	if from, _ := a.Response.Fields.Lookup("X-From"); from != "endpoint" || len(a.Response.Fields) != 1 {
		t.Errorf("fields %v", a.Response.Fields)
	}
	if !slices.Equal(interim, []int{103}) {
		t.Errorf("interim responses %v", interim)
	}
	if got := receive(t, acked, "the ping's answer"); got != [8]byte{7} {
		t.Errorf("answered %v", got)
	}
}

// TestConnectBulk: more than any window, both ways at once.
func TestConnectBulk(t *testing.T) {
	tunnel := openTunnel(t.Context(), t, connecting(t, http.StatusOK, make(chan http.Header, 1)))
	want := make([]byte, 3<<20+17)
	for i := range want {
		want[i] = byte(i ^ i>>8 ^ i>>16)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := tunnel.Write(want)
		sent <- errors.Join(err, tunnel.CloseWrite())
	}()
	got, err := io.ReadAll(tunnel)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
	if err := receive(t, sent, "sending"); err != nil {
		t.Error(err)
	}
}

// TestConnectSendWindows: not a byte beyond either window, whichever way it moves.
func TestConnectSendWindows(t *testing.T) {
	got := make(chan int)
	report := func(f *framed, n int) { // n bytes come, and then nothing but the answer to a ping
		got <- f.take(n)
		_ = f.WritePing(false, [8]byte{})
		frame, err := f.ReadFrame()
		for err == nil {
			if _, settings := frame.(*http2.SettingsFrame); !settings {
				break
			}
			frame, err = f.ReadFrame()
		}
		if _, ok := frame.(*http2.PingFrame); !ok {
			got <- -2
		}
	}
	addr := framing(t, []http2.Setting{takesConnect, {ID: http2.SettingInitialWindowSize, Val: 10}}, func(f *framed) {
		f.respond(false, ":status", "200")
		report(f, 10)
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 4}) // the stream's window is -6 now
		_ = f.WriteWindowUpdate(1, 6)
		report(f, 0)
		_ = f.WriteWindowUpdate(1, 1)
		report(f, 1)
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		report(f, h2.InitialWindow-11) // the connection's window is the lower now
		_ = f.WriteWindowUpdate(0, 1<<20)
		got <- f.take(100_000 - h2.InitialWindow)
		f.drain()
	})
	tunnel := openTunnel(t.Context(), t, addr)
	sent := make(chan error, 1)
	go func() {
		_, err := tunnel.Write(make([]byte, 100_000))
		sent <- err
	}()
	for _, want := range []int{10, 0, 1, h2.InitialWindow - 11, 100_000 - h2.InitialWindow} {
		if n := receive(t, got, "the next bytes"); n != want {
			t.Fatalf("the endpoint got %d bytes, want %d", n, want)
		}
	}
	if err := receive(t, sent, "sending"); err != nil {
		t.Error(err)
	}
}

// TestConnectReceiveWindow: what is not read is not credited, padding is, and an endpoint that sends more loses the connection.
func TestConnectReceiveWindow(t *testing.T) {
	code := make(chan http2.ErrCode, 1)
	addr := framing(t, []http2.Setting{takesConnect}, func(f *framed) {
		f.respond(false, ":status", "200")
		for range h2Window / h2Chunk {
			_ = f.WriteData(1, false, make([]byte, h2Chunk))
		}
		_ = f.WriteData(1, false, []byte("x"))
		if goaway, ok := next[*http2.GoAwayFrame](f); ok {
			code <- goaway.ErrCode
		}
	})
	tunnel := openTunnel(t.Context(), t, addr)
	if got := receive(t, code, "GOAWAY"); got != http2.ErrCodeFlowControl {
		t.Errorf("got %v", got)
	}
	n, err := io.Copy(io.Discard, tunnel)
	if fault := exchange.AsFault(err, ""); n != h2Window || fault.Kind != exchange.UpstreamProtocol {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

// TestConnectRefusal: the endpoint's own answer goes to the client, held to its length.
func TestConnectRefusal(t *testing.T) {
	tests := map[string]struct {
		fields []string
		body   string
		length int64
		want   exchange.Kind
	}{
		"whole":   {[]string{"content-length", "7"}, "refused", 7, ""},
		"unsized": {nil, "refused", -1, ""},
		"short":   {[]string{"content-length", "8"}, "refused", 8, exchange.UpstreamProtocol},
		"long":    {[]string{"content-length", "6"}, "refused", 6, exchange.UpstreamProtocol},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ended := make(chan bool, 1)
			addr := framing(t, []http2.Setting{takesConnect}, func(f *framed) {
				f.respond(false, append([]string{":status", "403"}, tt.fields...)...)
				data, ok := next[*http2.DataFrame](f)
				ended <- ok && data.StreamEnded()
				_ = f.WriteDataPadded(1, false, []byte(tt.body), make([]byte, 9))
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block("x-trailer", "1"), EndStream: true, EndHeaders: true})
				f.drain()
			})
			a, fault := dialConnect(t.Context(), t, addr)
			if fault != nil {
				t.Fatal(fault)
			}
			defer a.Body.Close()
			if a.Response.Status != 403 || a.Tunnel != nil || a.Body.Length() != tt.length {
				t.Errorf("got %d, length %d", a.Response.Status, a.Body.Length())
			}
			if !receive(t, ended, "the end of our side") {
				t.Error("our side did not end")
			}
			got, err := io.ReadAll(a.Body)
			if tt.want == "" {
				if err != nil || string(got) != tt.body {
					t.Errorf("got %q, %v", got, err)
				}
			} else if err == nil || exchange.AsFault(err, "").Kind != tt.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// TestConnectEnds: each way an open tunnel ends shows on both sides.
func TestConnectEnds(t *testing.T) {
	t.Run("reset by the endpoint", func(t *testing.T) {
		addr := framing(t, []http2.Setting{takesConnect}, func(f *framed) {
			f.respond(false, ":status", "200")
			_ = f.WriteData(1, false, []byte("last"))
			_ = f.WriteRSTStream(1, http2.ErrCodeCancel)
			f.drain()
		})
		tunnel := openTunnel(t.Context(), t, addr)
		got, err := io.ReadAll(tunnel)
		if string(got) != "last" || err == nil || exchange.AsFault(err, "").Kind != exchange.UpstreamReset {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := tunnel.Write([]byte("x")); err == nil {
			t.Error("writing goes on")
		}
	})
	t.Run("ended half by half", func(t *testing.T) {
		addr := framing(t, []http2.Setting{takesConnect}, func(f *framed) {
			f.respond(false, ":status", "200")
			_ = f.WriteData(1, true, []byte("last"))
			_ = f.WriteWindowUpdate(1, 5)
			got, total := false, 0
			for !got {
				data, ok := next[*http2.DataFrame](f)
				if !ok {
					return
				}
				total += len(data.Data())
				got = data.StreamEnded()
			}
			_ = f.WriteGoAway(1, http2.ErrCodeNo, []byte(strconv.Itoa(total)))
			f.drain()
		})
		tunnel := openTunnel(t.Context(), t, addr)
		if got, err := io.ReadAll(tunnel); err != nil || string(got) != "last" {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := tunnel.Write([]byte("still")); err != nil {
			t.Error(err)
		}
		if err := errors.Join(tunnel.CloseWrite(), tunnel.CloseWrite()); err != nil {
			t.Error(err)
		}
		if _, err := tunnel.Write([]byte("x")); err == nil {
			t.Error("writing goes on")
		}
	})
	t.Run("closed here", func(t *testing.T) {
		code := make(chan http2.ErrCode, 1)
		addr := framing(t, []http2.Setting{takesConnect}, func(f *framed) {
			f.respond(false, ":status", "200")
			if reset, ok := next[*http2.RSTStreamFrame](f); ok {
				code <- reset.ErrCode
			}
		})
		tunnel := openTunnel(t.Context(), t, addr)
		reading := make(chan error, 1)
		go func() {
			_, err := tunnel.Read(make([]byte, 1))
			reading <- err
		}()
		if err := tunnel.Close(); err != nil {
			t.Error(err)
		}
		if got := receive(t, code, "the reset"); got != http2.ErrCodeCancel {
			t.Errorf("got %v", got)
		}
		if err := receive(t, reading, "the end of Read"); err == nil {
			t.Error("Read got something")
		}
	})
	t.Run("stuck and closed", func(t *testing.T) {
		release := make(chan struct{})
		addr := framing(t, []http2.Setting{takesConnect, {ID: http2.SettingInitialWindowSize, Val: h2.MaxWindow}}, func(f *framed) {
			_ = f.WriteWindowUpdate(0, h2.MaxWindow-h2.InitialWindow)
			f.respond(false, ":status", "200")
			<-release
		})
		tunnel := openTunnel(t.Context(), t, addr)
		wrote := make(chan error, 1)
		go func() {
			_, err := tunnel.Write(make([]byte, 64<<20)) // more than sockets hold
			wrote <- err
		}()
		_ = tunnel.Close()
		if err := receive(t, wrote, "the end of Write"); err == nil {
			t.Error("everything was written")
		}
		close(release)
	})
}

// TestConnectContext: the context's end is the tunnel's, in every state, and its cause is the Fault.
func TestConnectContext(t *testing.T) {
	cause := exchange.NewFault(exchange.RequestTimeout, nil)
	t.Run("before SETTINGS", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		addr := scripted(t, func(c net.Conn) {
			_, _ = io.ReadFull(c, make([]byte, 1))
			cancel(cause)
			_, _ = io.Copy(io.Discard, c)
		})
		if _, fault := dialConnect(ctx, t, addr); fault != cause {
			t.Errorf("got %v", fault)
		}
	})
	t.Run("before the answer", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		addr := framing(t, []http2.Setting{takesConnect}, func(f *framed) {
			cancel(cause)
			f.drain()
		})
		if _, fault := dialConnect(ctx, t, addr); fault != cause {
			t.Errorf("got %v", fault)
		}
	})
	t.Run("open", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		addr := framing(t, []http2.Setting{takesConnect, {ID: http2.SettingInitialWindowSize, Val: 0}}, func(f *framed) {
			f.respond(false, ":status", "200")
			f.drain()
		})
		tunnel := openTunnel(ctx, t, addr)
		ends := make(chan error, 2)
		go func() {
			_, err := tunnel.Read(make([]byte, 1))
			ends <- err
		}()
		go func() {
			_, err := tunnel.Write([]byte("x"))
			ends <- err
		}()
		cancel(cause)
		for range 2 {
			if err := receive(t, ends, "the end"); !errors.Is(err, cause) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// TestConnectShares: tunnels and requests are on one connection, which counts like any other.
func TestConnectShares(t *testing.T) {
	changes := make(chan int, 4)
	conf := cluster(connecting(t, http.StatusOK, make(chan http.Header, 3)))
	conf.Protocol = config.UpstreamH2C
	lease, _ := newManager(t, Options{OnConnections: func(_ string, delta int) { changes <- delta }}).Apply([]*config.Cluster{conf})
	var tunnels []exchange.Stream
	for range 3 {
		a, fault := send(t.Context(), lease.Cluster("c"), &Attempt{Request: switchHead(t, "CONNECT", "websocket"), Body: exchange.NoBody})
		if fault != nil {
			t.Fatal(fault)
		}
		tunnels = append(tunnels, a.Tunnel)
	}
	if got := receive(t, changes, "the connection"); got != 1 || len(changes) > 0 {
		t.Errorf("got %d and %d more", got, len(changes))
	}
	for _, tunnel := range tunnels {
		echo(t, tunnel)
	}
	lease.Release()
	if got := receive(t, changes, "its end"); got != -1 || len(changes) > 0 {
		t.Errorf("got %d and %d more", got, len(changes))
	}
}

// TestConnectTLS: the endpoint's certificate is held to the policy, and HTTP/1.1 is spoken to an endpoint that chooses it.
func TestConnectTLS(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	echoing := func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			buf := make([]byte, 100)
			for {
				n, err := r.Body.Read(buf)
				_, _ = w.Write(buf[:n])
				_ = http.NewResponseController(w).Flush()
				if err != nil {
					return
				}
			}
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Te: "+r.Header.Get("Te")+"\r\nX-Connection: "+r.Header.Get("Connection")+
			"\r\nSec-WebSocket-Accept: "+acceptOf(r.Header.Get(keyField))+"\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	}
	plain := func(c net.Conn) { // HTTP/2 without extended CONNECT
		if http2.NewFramer(c, nil).WriteSettings() == nil {
			_, _ = io.Copy(io.Discard, c)
		}
	}
	tests := map[string]struct {
		protocols func(*http.Protocols)
		h2        func(net.Conn)
		method    string
		ca        *testCA
		want      exchange.Kind
	}{
		"h2":                             {h1AndH2, nil, "CONNECT", ca, ""},
		"http/1.1 chosen, from CONNECT":  {h1Only, nil, "CONNECT", ca, ""},
		"http/1.1 chosen, from Upgrade":  {h1Only, nil, "GET", ca, ""},
		"not offered, from CONNECT":      {nil, plain, "CONNECT", ca, ""},
		"not offered, from Upgrade":      {nil, plain, "GET", ca, ""},
		"a certificate of somebody else": {h1AndH2, nil, "CONNECT", other, exchange.UpstreamTLS},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, originOptions{protocols: tt.protocols, h2: tt.h2, tls: &tls.Config{
				Certificates: []tls.Certificate{ca.issue(t, "endpoint.test", "", nil)},
			}}, echoing)
			conf := cluster(o.addr)
			conf.Protocol = config.UpstreamHTTP2
			conf.TLS = &config.UpstreamTLS{ServerName: "endpoint.test", CAs: tt.ca.pem}
			fields := []string{"TE", "trailers"}
			if tt.method == "GET" {
				fields = append(fields, keyField, rfcKey)
			}
			a, fault := send(t.Context(), single(t, conf), &Attempt{Request: switchHead(t, tt.method, "websocket", fields...), Body: exchange.NoBody})
			if tt.want != "" {
				if fault == nil || fault.Kind != tt.want {
					t.Errorf("got %v", fault)
				}
				return
			}
			if fault != nil {
				t.Fatal(fault)
			}
			te, _ := a.Response.Fields.Lookup("X-Te")
			if named, _ := a.Response.Fields.Lookup("X-Connection"); te != "" && !strings.Contains(named, "TE") {
				t.Errorf("TE: %s crossed into HTTP/1.1, where Connection names %q alone", te, named)
			}
			echo(t, a.Tunnel)
		})
	}
}
