package downstream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

func TestH2Responses(t *testing.T) {
	trailers := exchange.Fields{{Name: "X-Sum", Value: "7"}, {Name: "Connection", Value: "x", ID: exchange.Connection}}
	tests := map[string]struct {
		method string
		serve  serve
		status int
		length string
		frames int // of DATA; -1: any number
		body   string
		trail  string // x-sum
	}{
		"small":               {"GET", respond(200, true, []string{"hello"}, nil), 200, "5", 1, "hello", ""},
		"small, not told":     {"GET", respond(200, false, []string{"hello"}, nil), 200, "", 1, "hello", ""},
		"in parts":            {"GET", respond(201, true, []string{"he", "llo"}, nil), 201, "5", 2, "hello", ""},
		"empty":               {"GET", respond(404, true, nil, nil), 404, "0", 0, "", ""},
		"empty, not told":     {"GET", respond(200, false, nil, nil), 200, "", 0, "", ""},
		"trailers":            {"GET", respond(200, false, []string{"hello"}, trailers), 200, "", 1, "hello", "7"},
		"trailers alone":      {"GET", respond(200, true, nil, trailers), 200, "0", 0, "", "7"},
		"no content":          {"GET", respond(204, true, nil, nil), 204, "", 0, "", ""},
		"head":                {"HEAD", headOnly(200, 5), 200, "5", 0, "", ""},
		"not modified":        {"GET", headOnly(304, 5), 304, "5", 0, "", ""},
		"head with a body":    {"HEAD", respond(200, true, []string{"hello"}, nil), 200, "5", 0, "", ""},
		"a frame":             {"GET", respond(200, true, []string{strings.Repeat("f", 16384)}, nil), 200, "16384", 1, strings.Repeat("f", 16384), ""},
		"two frames":          {"GET", respond(200, true, []string{strings.Repeat("f", 16385)}, nil), 200, "16385", 2, strings.Repeat("f", 16385), ""},
		"larger than windows": {"GET", respond(200, true, slices.Repeat([]string{strings.Repeat("g", 50_000)}, 3), nil), 200, "150000", -1, strings.Repeat("g", 150_000), ""},
	}
	each(t, func(t *testing.T, secure bool) {
		for name, tc := range tests {
			h := build(t, houseOptions{secure: secure, handler: tc.serve})
			p := h.visit2(t)
			p.open(1, true, ":method", tc.method)
			a := p.stream(1)
			if len(tc.body) > 65535 {
				p.until("the window's end", func() bool { return len(a.body) == 65535 })
				p.ok(p.frame.WriteWindowUpdate(0, 100_000))
				p.ok(p.frame.WriteWindowUpdate(1, 100_000))
			}
			p.answer(1)
			if a.status != tc.status || string(a.body) != tc.body || a.fields["content-length"] != tc.length || a.trailers["x-sum"] != tc.trail || a.reset {
				t.Errorf("%s: got %d %v, %d bytes, trailers %v, reset %v", name, a.status, a.fields, len(a.body), a.trailers, a.reset)
			}
			if a.frames != tc.frames && tc.frames >= 0 {
				t.Errorf("%s: %d DATA frames, want %d", name, a.frames, tc.frames)
			}
			if a.fields["date"] != "Mon, 02 Jan 2006 15:04:05 GMT" || a.fields["connection"] != "" || a.trailers["connection"] != "" {
				t.Errorf("%s: fields %v, trailers %v", name, a.fields, a.trailers)
			}
		}
	})
}

// headOnly answers with a length and no body.
func headOnly(status int, length int64) serve {
	return func(_ *exchange.Exchange, w exchange.Responder) {
		resp := exchange.Response{Status: status}
		resp.Fields.Add("Date", "Mon, 02 Jan 2006 15:04:05 GMT")
		_ = w.Respond(&resp, length)
		_ = w.Finish(nil)
	}
}

// A small answer is there in one read: head and body left in one write.
func TestH2SmallAnswerIsOneWrite(t *testing.T) {
	h := build(t, houseOptions{handler: serve(echo)})
	p := h.visit2(t)
	p.until("the handshake", func() bool { return p.acked == 1 && len(p.settings) > 0 && p.credit > 0 })
	for i := range 20 {
		p.open(uint32(2*i+1), true)
		room := make([]byte, 16<<10)
		n, err := p.conn.Read(room)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(room[:n]); !strings.HasSuffix(got, "HTTP/2\n0:") {
			t.Fatalf("the first read has %q", got)
		}
	}
}

func TestH2Settings(t *testing.T) {
	h := build(t, houseOptions{handler: serve(echo), limits: Limits{MaxStreams: 7, MaxHeaderBytes: 12345}})
	p := h.visit2(t, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}, http2.Setting{ID: 0x77, Val: 1})
	p.until("SETTINGS", func() bool { return p.acked == 1 && p.credit > 0 })
	for id, want := range map[http2.SettingID]uint32{
		http2.SettingMaxConcurrentStreams: 7, http2.SettingMaxHeaderListSize: 12345, http2.SettingEnableConnectProtocol: 1,
		http2.SettingNoRFC7540Priorities: 1, http2.SettingInitialWindowSize: h2StreamWindow,
	} {
		if got, ok := p.settings[id]; !ok || got != want {
			t.Errorf("%v: got %d, %v, want %d", id, got, ok, want)
		}
	}
	if len(p.settings) != 5 || p.credit+65535 != h2ConnWindow {
		t.Errorf("%d settings, a window of %d", len(p.settings), p.credit+65535)
	}
	p.lives(1)
}

// A client that makes the table smaller must be told that ours is, once, at the beginning of a header block (RFC 7541 4.2).
func TestH2SmallTable(t *testing.T) {
	for size, want := range map[uint32]bool{0: true, 4095: true, 4096: false, 65536: false} {
		h := build(t, houseOptions{handler: serve(echo)})
		p := h.visit2(t, http2.Setting{ID: http2.SettingHeaderTableSize, Val: size})
		p.frame.ReadMetaHeaders = nil
		for id := uint32(1); id < 6; id += 2 {
			p.open(id, true)
			var block []byte
			for block == nil {
				f, err := p.frame.ReadFrame()
				p.ok(err)
				if f, ok := f.(*http2.HeadersFrame); ok {
					block = f.HeaderBlockFragment()
				}
			}
			if got := block[0] == 0x20; got != (want && id == 1) {
				t.Errorf("table of %d, stream %d: the block begins with %#x", size, id, block[0])
			}
		}
	}
}

func TestH2Scheme(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		want := map[bool]string{false: "http", true: "https"}[secure]
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) { reply(w, 200, x.Req.Scheme) })})
		p := h.visit2(t)
		for i, scheme := range []string{"http", "https"} {
			p.open(uint32(2*i+1), true, ":scheme", scheme)
			if a := p.answer(uint32(2*i + 1)); string(a.body) != want {
				t.Errorf("the client says %s: got %q, want %q", scheme, a.body, want)
			}
		}
	})
}

// TLS 1.2 with a suite that HTTP/2 forbids (RFC 9113 9.2.2).
func TestH2WeakTLS(t *testing.T) {
	for suite, want := range map[uint16]http2.ErrCode{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA: http2.ErrCodeInadequateSecurity, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: http2.ErrCodeNo,
	} {
		h := build(t, houseOptions{secure: true, handler: serve(echo)})
		p := h.dial2(t, func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite} })
		_, err := io.WriteString(p.conn, http2.ClientPreface)
		p.ok(errors.Join(err, p.frame.WriteSettings()))
		if want == http2.ErrCodeNo {
			p.lives(1)
		} else if got := p.end(); got.code != want {
			t.Errorf("%s: got %+v", tls.CipherSuiteName(suite), got)
		}
	}
}

func TestH2Malformed(t *testing.T) {
	tests := map[string][]hpack.HeaderField{
		"upper case":         h2fields("X-A", "1"),
		"empty name":         h2fields("", "1"),
		"space":              h2fields("x-a", " 1"),
		"newline":            h2fields("x-a", "1\n2"),
		"NUL":                h2fields("x-a", "1\x00"),
		"connection":         h2fields("connection", "close"),
		"te":                 h2fields("te", "gzip"),
		"unknown pseudo":     h2fields(":x", "1"),
		"status":             h2fields(":status", "200"),
		"late pseudo":        append(h2fields("x-a", "1")[1:], h2fields()[0]),
		"two paths":          append(h2fields()[:4:4], hpack.HeaderField{Name: ":path", Value: "/b"}),
		"no method":          h2fields()[1:],
		"empty path":         h2fields(":path", ""),
		"space in the path":  h2fields(":path", "/a b"),
		"fragment":           h2fields(":path", "/a#b"),
		"scheme":             h2fields(":scheme", "ftp"),
		"host differs":       h2fields("host", "other.test"),
		"userinfo":           h2fields(":authority", "u@x.test"),
		"no body":            h2fields("content-length", "5"),
		"length with plus":   h2fields("content-length", "+0"),
		"two lengths":        h2fields("content-length", "0", "content-length", "0"),
		"protocol":           h2fields(":protocol", "websocket"),
		"connect and a path": h2fields(":method", "CONNECT", ":protocol", ""),
	}
	each(t, func(t *testing.T, secure bool) {
		faults := make(chan *exchange.Fault, len(tests)+1)
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			faults <- x.Fault
			echo(x, w)
		})})
		p := h.visit2(t)
		id := uint32(1)
		for name, fields := range tests {
			p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields), EndStream: true, EndHeaders: true}))
			if a := p.answer(id); !a.reset || a.code != http2.ErrCodeProtocol || a.status != 0 {
				t.Errorf("%s: %+v", name, a)
			}
			if fault := <-faults; fault == nil || fault.Kind != exchange.BadRequest || fault.Err == nil { // it is logged
				t.Errorf("%s: the handler saw %v", name, fault)
			}
			id += 2
		}
		p.lives(id)
	})
}

// What breaks the protocol within a stream ends that stream; the connection goes on.
func TestH2StreamErrors(t *testing.T) {
	trailers := func(p *h2peer, end bool, pairs ...string) {
		var fields []hpack.HeaderField
		for i := 0; i < len(pairs); i += 2 {
			fields = append(fields, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
		}
		p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(fields), EndStream: end, EndHeaders: true}))
	}
	tests := map[string]struct {
		fields []string
		send   func(p *h2peer)
		want   http2.ErrCode
	}{
		"body too short":        {[]string{"content-length", "5"}, func(p *h2peer) { p.ok(p.frame.WriteData(1, true, []byte("four"))) }, http2.ErrCodeProtocol},
		"body too long":         {[]string{"content-length", "5"}, func(p *h2peer) { p.ok(p.frame.WriteData(1, false, []byte("sixsix"))) }, http2.ErrCodeProtocol},
		"short before trailers": {[]string{"content-length", "5"}, func(p *h2peer) { trailers(p, true, "x-a", "1") }, http2.ErrCodeProtocol},
		"trailers go on":        {nil, func(p *h2peer) { trailers(p, false, "x-a", "1") }, http2.ErrCodeProtocol},
		"pseudo in trailers":    {nil, func(p *h2peer) { trailers(p, true, ":path", "/x") }, http2.ErrCodeProtocol},
		"upper case trailers":   {nil, func(p *h2peer) { trailers(p, true, "X-A", "1") }, http2.ErrCodeProtocol},
		"window by 0":           {nil, func(p *h2peer) { p.ok(p.frame.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4))) }, http2.ErrCodeProtocol},
		"window too large":      {nil, func(p *h2peer) { p.ok(p.frame.WriteWindowUpdate(1, 1<<31-1)) }, http2.ErrCodeFlowControl},
		"beyond the window": {nil, func(p *h2peer) {
			for range 17 {
				p.ok(p.frame.WriteData(1, false, make([]byte, 16384)))
			}
		}, http2.ErrCodeFlowControl},
		"priority of 4 bytes": {nil, func(p *h2peer) { p.ok(p.frame.WriteRawFrame(http2.FramePriority, 0, 1, make([]byte, 4))) }, http2.ErrCodeFrameSize},
		"depends on itself":   {nil, func(p *h2peer) { p.ok(p.frame.WritePriority(1, http2.PriorityParam{StreamDep: 1})) }, http2.ErrCodeProtocol},
	}
	each(t, func(t *testing.T, secure bool) {
		for name, tc := range tests {
			ended := make(chan error, 1)
			h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
				if x.Req.Method == "POST" {
					<-x.Life.Done()
					_, err := io.ReadAll(x.ReqBody)
					ended <- errors.Join(err, w.Respond(&x.Resp, 0))
				}
				echo(x, w)
			})})
			p := h.visit2(t)
			p.open(1, false, append([]string{":method", "POST"}, tc.fields...)...)
			tc.send(p)
			if a := p.answer(1); !a.reset || a.code != tc.want || a.status != 0 {
				t.Errorf("%s: %+v, want %v", name, a, tc.want)
			}
			err := <-ended
			if fault, ok := errors.AsType[*exchange.Fault](err); !ok || fault.Kind != exchange.BadRequest {
				t.Errorf("%s: the exchange ended with %v", name, err)
			}
			p.lives(3)
		}
	})
}

// What breaks the protocol of the connection ends it.
func TestH2ConnectionErrors(t *testing.T) {
	tests := map[string]struct {
		send func(p *h2peer)
		want http2.ErrCode
	}{
		"first no SETTINGS":      {nil, http2.ErrCodeProtocol},
		"even stream":            {func(p *h2peer) { p.open(2, true) }, http2.ErrCodeProtocol},
		"DATA before HEADERS":    {func(p *h2peer) { p.ok(p.frame.WriteData(1, true, nil)) }, http2.ErrCodeProtocol},
		"DATA on an even stream": {func(p *h2peer) { p.open(3, false); p.ok(p.frame.WriteData(2, true, nil)) }, http2.ErrCodeProtocol},
		"reset before HEADERS":   {func(p *h2peer) { p.ok(p.frame.WriteRSTStream(1, 8)) }, http2.ErrCodeProtocol},
		"window before HEADERS":  {func(p *h2peer) { p.ok(p.frame.WriteWindowUpdate(1, 8)) }, http2.ErrCodeProtocol},
		"window by 0":            {func(p *h2peer) { p.ok(p.frame.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4))) }, http2.ErrCodeProtocol},
		"window too large":       {func(p *h2peer) { p.ok(p.frame.WriteWindowUpdate(0, 1<<31-1)) }, http2.ErrCodeFlowControl},
		"frame too long":         {func(p *h2peer) { p.ok(p.frame.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 20_000))) }, http2.ErrCodeFrameSize},
		"SETTINGS on a stream":   {func(p *h2peer) { p.ok(p.frame.WriteRawFrame(http2.FrameSettings, 0, 1, nil)) }, http2.ErrCodeProtocol},
		"frame size 0":           {func(p *h2peer) { p.ok(p.frame.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize})) }, http2.ErrCodeProtocol},
		"window of 2^31": {func(p *h2peer) {
			p.ok(p.frame.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}))
		}, http2.ErrCodeFlowControl},
		"push": {func(p *h2peer) { p.ok(p.frame.WriteRawFrame(http2.FramePushPromise, 4, 1, []byte{0, 0, 0, 2})) }, http2.ErrCodeProtocol},
		"compression": {func(p *h2peer) {
			p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff}, EndStream: true, EndHeaders: true}))
		}, http2.ErrCodeCompression},
		"compression in trailers": {func(p *h2peer) {
			p.open(1, false, ":method", "POST")
			p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xbf}, EndStream: true, EndHeaders: true}))
		}, http2.ErrCodeCompression},
		"HEADERS after the end": {func(p *h2peer) {
			p.open(1, true)
			p.answer(1)
			p.open(1, true)
		}, http2.ErrCodeStreamClosed},
		"older stream": {func(p *h2peer) {
			p.open(5, true)
			p.open(3, true)
		}, http2.ErrCodeStreamClosed},
		"continuation cut off": {func(p *h2peer) {
			p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(h2fields())}))
			p.ok(p.frame.WritePing(false, [8]byte{}))
		}, http2.ErrCodeProtocol},
		"beyond the connection's window": {func(p *h2peer) {
			for n := range h2ConnWindow/16384 + 1 {
				id := uint32(n/(h2StreamWindow/16384))*2 + 1
				if n%(h2StreamWindow/16384) == 0 {
					p.open(id, false, ":method", "POST")
				}
				p.ok(p.frame.WriteData(id, false, make([]byte, 16384)))
			}
		}, http2.ErrCodeFlowControl},
		"priority update of stream 2": {func(p *h2peer) { p.ok(p.frame.WriteRawFrame(0x10, 0, 0, []byte{0, 0, 0, 2})) }, http2.ErrCodeProtocol},
		"priority on itself":          {func(p *h2peer) { p.ok(p.frame.WritePriority(9, http2.PriorityParam{StreamDep: 9})) }, http2.ErrCodeProtocol},
	}
	each(t, func(t *testing.T, secure bool) {
		for name, tc := range tests {
			life := make(chan struct{}, 16)
			h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
				if x.Req.Method == "POST" {
					<-x.Life.Done()
					life <- struct{}{}
					return
				}
				echo(x, w)
			})})
			var p *h2peer
			if tc.send == nil {
				p = h.dial2(t)
				_, err := io.WriteString(p.conn, http2.ClientPreface)
				p.ok(errors.Join(err, p.frame.WritePing(false, [8]byte{})))
			} else {
				p = h.visit2(t)
				tc.send(p)
			}
			if got := p.end(); got.code != tc.want || got.debug == "" {
				t.Errorf("%s: got %+v, want %v", name, got, tc.want)
			}
		}
	})
}

func TestH2PrefaceInPieces(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo)})
		p := h.dial2(t)
		for _, c := range []byte(http2.ClientPreface) {
			_, err := p.conn.Write([]byte{c})
			p.ok(err)
		}
		p.ok(p.frame.WriteSettings())
		p.lives(1)

		p = h.dial2(t)
		_, _ = io.WriteString(p.conn, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
		if secure {
			p.end()
			return
		}
		if got, err := io.ReadAll(p.conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 ") {
			t.Errorf("what begins like the preface and goes on as HTTP/1 got %q, %v", got, err)
		}
	})
}

func TestH2HeaderLimits(t *testing.T) {
	many := []string{}
	for i := range 60 {
		many = append(many, "x-"+strconv.Itoa(i), "v")
	}
	crumbs := []string{}
	for range 49 {
		crumbs = append(crumbs, "cookie", strings.Repeat("c", 400))
	}
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo), limits: Limits{MaxHeaderBytes: 16 << 10, MaxHeaderCount: 50}})
		p := h.visit2(t)
		id := uint32(1)
		for name, tc := range map[string]struct {
			fields []string
			want   int
		}{
			"within":       {many[:100], 200},
			"one too many": {many[:102], 431},
			"many":         {many, 431},
			"crumbs":       {crumbs, 431},
			"large":        {[]string{"x-a", strings.Repeat("a", 15<<10)}, 200},
			"too large":    {[]string{"x-a", strings.Repeat("a", 17<<10)}, 431},
			"far too":      {[]string{"x-a", strings.Repeat("a", 60<<10)}, 431},
			"long name":    {[]string{strings.Repeat("n", 17<<10), ""}, 431},
		} {
			block := slices.Clone(p.encode(h2fields(tc.fields...)))
			first := min(len(block), 16384)
			p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:first], EndStream: true, EndHeaders: first == len(block)}))
			for block = block[first:]; len(block) > 0; {
				n := min(len(block), 16384)
				p.ok(p.frame.WriteContinuation(id, n == len(block), block[:n]))
				block = block[n:]
			}
			if a := p.answer(id); a.status != tc.want {
				t.Errorf("%s: %+v, want %d", name, a, tc.want)
			}
			id += 2
		}
		// The table is in step: what was refused went through it.
		p.open(id, true, "x-59", "v")
		if a := p.answer(id); !strings.Contains(string(a.body), "x-59=v\n") {
			t.Errorf("the next request: %+v", a)
		}
	})
}

func TestH2BodyLimit(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo), limits: Limits{MaxBodyBytes: 1000}})
		p := h.visit2(t)
		id := uint32(1)
		for name, tc := range map[string]struct {
			size int
			told bool
			want int
		}{
			"at it, told": {1000, true, 200}, "over, told": {1001, true, 413}, "at it": {1000, false, 200}, "over": {1001, false, 413}, "far over": {200_000, false, 413},
		} {
			fields := []string{":method", "POST"}
			if tc.told {
				fields = append(fields, "content-length", strconv.Itoa(tc.size))
			}
			p.open(id, false, fields...)
			for left := tc.size; left > 0; {
				n := min(left, 16384)
				left -= n
				p.ok(p.frame.WriteData(id, left == 0, make([]byte, n)))
			}
			if a := p.answer(id); a.status != tc.want {
				t.Errorf("%s: %+v, want %d", name, a, tc.want)
			}
			id += 2
		}
		p.lives(id)
	})
}

func TestH2TrailersTooLarge(t *testing.T) {
	h := build(t, houseOptions{handler: serve(echo), limits: Limits{MaxHeaderBytes: 2000}})
	p := h.visit2(t)
	p.open(1, false, ":method", "POST")
	fields := []hpack.HeaderField{{Name: "x-a", Value: strings.Repeat("a", 3000)}}
	p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(fields), EndStream: true, EndHeaders: true}))
	if a := p.answer(1); a.status != 431 {
		t.Errorf("got %+v", a)
	}
	p.lives(3)
}

// 100 (Continue) goes out when the body is first read, unless it has come or the answer has begun.
func TestH2Continue(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		read := make(chan bool)
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			if <-read {
				echo(x, w)
				return
			}
			reply(w, 403, "no")
		})})
		p := h.visit2(t)
		p.open(1, false, ":method", "POST", "expect", "100-continue")
		read <- true
		a := p.stream(1)
		p.until("100", func() bool { return len(a.interim) > 0 })
		p.ok(p.frame.WriteData(1, true, []byte("hello")))
		if p.answer(1); a.status != 200 || !strings.HasSuffix(string(a.body), "5:hello") && !strings.HasSuffix(string(a.body), "-1:hello") || len(a.interim) != 1 {
			t.Errorf("got %+v", a)
		}
		p.open(3, false, ":method", "POST", "expect", "100-continue")
		p.ok(p.frame.WriteData(3, true, []byte("hello")))
		p.ok(p.frame.WritePing(false, [8]byte{}))
		p.until("the server to have read it", func() bool { return len(p.pings) > 0 })
		read <- true
		if a := p.answer(3); a.status != 200 || len(a.interim) != 0 {
			t.Errorf("the body was there: got %+v", a)
		}
		p.open(5, false, ":method", "POST", "expect", "100-continue")
		read <- false
		a = p.answer(5)
		p.until("the request to be stopped", func() bool { return a.reset })
		if a.status != 403 || len(a.interim) != 0 || !a.ended || a.code != http2.ErrCodeNo {
			t.Errorf("the body is not wanted: got %+v", a)
		}
	})
}

func TestH2Inform(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		goOn := make(chan struct{})
		h := build(t, houseOptions{secure: secure, handler: serve(func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Inform(103, exchange.Fields{{Name: "Link", Value: "</a>"}})
			_ = w.Inform(103, nil)
			<-goOn
			reply(w, 200, "done")
		})})
		p := h.visit2(t)
		p.open(1, true)
		a := p.stream(1)
		p.until("103", func() bool { return len(a.interim) == 2 })
		close(goOn)
		if p.answer(1); a.status != 200 || string(a.body) != "done" || fmt.Sprint(a.interim) != "[103 103]" || a.fields["link"] != "" {
			t.Errorf("got %+v", a)
		}
	})
}

// What is flushed arrives before the response goes on.
func TestH2Flush(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		goOn := make(chan struct{})
		h := build(t, houseOptions{secure: secure, handler: serve(func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, -1)
			_ = w.Flush()
			for range 3 {
				<-goOn
				_, _ = io.WriteString(w, "part")
				_ = w.Flush()
			}
			<-goOn
			_ = w.Finish(nil)
		})})
		p := h.visit2(t)
		p.open(1, true)
		a := p.stream(1)
		p.until("the head", func() bool { return a.status == 200 })
		for n := 4; n <= 12; n += 4 {
			goOn <- struct{}{}
			p.until("a part", func() bool { return len(a.body) == n })
		}
		if a.ended {
			t.Error("it has ended before Finish")
		}
		goOn <- struct{}{}
		p.answer(1)
	})
}

// A response that cannot be completed is seen to be broken.
func TestH2Broken(t *testing.T) {
	tests := map[string]struct {
		serve serve
		want  http2.ErrCode
	}{
		"aborted": {func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, -1)
			_, _ = io.WriteString(w, "half")
			w.Abort()
		}, http2.ErrCodeInternal},
		"too short": {func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, 5)
			_, _ = io.WriteString(w, "four")
			_ = w.Finish(nil)
		}, http2.ErrCodeInternal},
		"too long": {func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, 5)
			_, _ = io.WriteString(w, "sixsix")
		}, http2.ErrCodeInternal},
		"left": {func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, 5)
		}, http2.ErrCodeInternal},
		"no answer":   {func(*exchange.Exchange, exchange.Responder) {}, http2.ErrCodeInternal},
		"only a body": {func(_ *exchange.Exchange, w exchange.Responder) { _, _ = io.WriteString(w, "body"); _ = w.Finish(nil) }, http2.ErrCodeInternal},
		"bad field": {func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200, Fields: exchange.Fields{{Name: "x", Value: "a\nb"}}}, 0)
		}, http2.ErrCodeInternal},
	}
	each(t, func(t *testing.T, secure bool) {
		for name, tc := range tests {
			h := build(t, houseOptions{secure: secure, handler: tc.serve})
			p := h.visit2(t)
			p.open(1, true)
			if a := p.answer(1); !a.reset || a.ended || a.code != tc.want {
				t.Errorf("%s: %+v", name, a)
			}
		}
	})
}

// A head that cannot be sent does not keep another from being sent.
func TestH2SecondHead(t *testing.T) {
	h := build(t, houseOptions{handler: serve(func(_ *exchange.Exchange, w exchange.Responder) {
		err := w.Respond(&exchange.Response{Status: 200, Fields: exchange.Fields{{Name: "x", Value: "a\nb"}}}, 0)
		if fault, ok := errors.AsType[*exchange.Fault](err); ok {
			reply(w, fault.Status, string(fault.Kind))
		}
	})})
	p := h.visit2(t)
	p.open(1, true)
	if a := p.answer(1); a.status != 502 || string(a.body) != string(exchange.UpstreamProtocol) {
		t.Errorf("got %+v", a)
	}
}

// A handler may leave the end of a complete response out, and the request's body unread.
func TestH2LeftOpen(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, 5)
			_, _ = io.WriteString(w, "whole")
		})})
		p := h.visit2(t)
		for id := uint32(1); id < 200; id += 2 {
			p.open(id, false, ":method", "POST")
			p.ok(p.frame.WriteData(id, false, make([]byte, 16384)))
			a := p.stream(id)
			p.until("the end of both sides", func() bool { return a.ended && a.reset })
			if a.code != http2.ErrCodeNo || string(a.body) != "whole" {
				t.Fatalf("got %+v", a)
			}
			p.ok(p.frame.WriteData(id, false, make([]byte, 100))) // was on its way
		}
		// The connection's window was opened for what nobody read: 100 times 16 KiB are more than it had.
		p.lives(201)
	})
}
