package hostile

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/test/harness"
)

// origin2 is a connection of an HTTP/2 origin that keeps to no rule.
type origin2 struct {
	net.Conn
	frame *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
	id    uint32 // of the request that was read last
}

// newOrigin2 starts an origin whose hostile plays the answer to a request for /hostile; other requests get their path as the body. greet is what
// it sends in place of empty SETTINGS, if it is not nil.
func newOrigin2(t testing.TB, greet, hostile func(o *origin2)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			serving.Go(func() {
				defer conn.Close()
				serve2(conn, greet, hostile)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return netip.MustParseAddrPort(ln.Addr().String())
}

func serve2(conn net.Conn, greet, hostile func(o *origin2)) {
	o := &origin2{Conn: conn, frame: http2.NewFramer(conn, conn)}
	o.frame.AllowIllegalWrites = true
	o.frame.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	o.enc = hpack.NewEncoder(&o.block)
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	if greet != nil {
		greet(o)
	} else if o.frame.WriteSettings() != nil {
		return
	}
	for {
		f, err := o.frame.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = o.frame.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = o.frame.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			path := f.PseudoValue("path")
			if o.id = f.StreamID; path == "/hostile" {
				hostile(o)
				continue
			}
			o.headers(false, ":status", "200", "content-length", strconv.Itoa(len(path)))
			_ = o.frame.WriteData(o.id, true, []byte(path))
		}
	}
}

// headers sends these fields, whatever they are.
func (o *origin2) headers(ended bool, pairs ...string) {
	o.block.Reset()
	for _, f := range harness.F(pairs...) {
		_ = o.enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	rest := o.block.Bytes()
	first := rest[:min(len(rest), 16<<10)]
	rest = rest[len(first):]
	_ = o.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: o.id, BlockFragment: first, EndHeaders: len(rest) == 0, EndStream: ended})
	for len(rest) > 0 {
		n := min(len(rest), 16<<10)
		_ = o.frame.WriteContinuation(o.id, n == len(rest), rest[:n])
		rest = rest[n:]
	}
}

// say answers with these fields and a body.
func say(body string, pairs ...string) func(o *origin2) {
	return func(o *origin2) {
		o.headers(false, pairs...)
		_ = o.frame.WriteData(o.id, true, []byte(body))
	}
}

// after answers well as far as the head goes, and then does something else.
func after(do func(o *origin2)) func(o *origin2) {
	return func(o *origin2) {
		o.headers(false, ":status", "200", "x-a", "1")
		do(o)
	}
}

// again does something many times.
func again(n int, do func(o *origin2) error) func(o *origin2) {
	return func(o *origin2) {
		for range n {
			if do(o) != nil {
				return
			}
		}
	}
}

// hostileAnswers2 are answers whose message is malformed (RFC 9113 8.1.1): the client must get no 2xx that looks whole.
func hostileAnswers2() map[string]func(o *origin2) {
	all := map[string]func(o *origin2){
		"no :status":              say("evil", "x-a", "1"),
		"late :status":            say("evil", "x-a", "1", ":status", "200"),
		"two :status":             say("evil", ":status", "200", ":status", "200"),
		"unknown pseudo-field":    say("evil", ":status", "200", ":x", "1"),
		":path":                   say("evil", ":status", "200", ":path", "/"),
		"101":                     say("evil", ":status", "101"),
		"interim that ends":       func(o *origin2) { o.headers(true, ":status", "103") },
		"longer than its length":  say("evil", ":status", "200", "content-length", "2"),
		"shorter than its length": say("evil", ":status", "200", "content-length", "20"),
		"length and nothing":      func(o *origin2) { o.headers(true, ":status", "200", "content-length", "20") },
		"a bomb":                  bombAnswer,
		"too many fields":         say("evil", append([]string{":status", "200"}, pairsOf("x-a", "1", 5000)...)...),
		"too long":                say("evil", ":status", "200", "x-a", strings.Repeat("a", 300<<10)),
		"pseudo-field in the trailers": after(func(o *origin2) {
			_ = o.frame.WriteData(o.id, false, []byte("evil"))
			o.headers(true, ":status", "200")
		}),
		"LF in the trailers":       after(func(o *origin2) { _ = o.frame.WriteData(o.id, false, []byte("evil")); o.headers(true, "x-a", "1\nx") }),
		"trailers that do not end": after(func(o *origin2) { o.headers(false, "x-a", "1") }),
		"reset":                    after(func(o *origin2) { _ = o.frame.WriteRSTStream(o.id, http2.ErrCodeInternal) }),
		"reset without an error":   after(func(o *origin2) { _ = o.frame.WriteRSTStream(o.id, http2.ErrCodeNo) }),
		"reset before the answer":  func(o *origin2) { _ = o.frame.WriteRSTStream(o.id, http2.ErrCodeInternal) },
		"data before the answer":   func(o *origin2) { _ = o.frame.WriteData(o.id, true, []byte("evil")) },
		"end of the connection":    after(func(o *origin2) { _ = o.Close() }),
		"GOAWAY and the end":       after(func(o *origin2) { _ = o.frame.WriteGoAway(0, http2.ErrCodeNo, nil); _ = o.Close() }),
		"pushed": after(func(o *origin2) {
			_ = o.frame.WritePushPromise(http2.PushPromiseParam{StreamID: o.id, PromiseID: 2, EndHeaders: true})
		}),
		"data of a stream nobody began": after(func(o *origin2) { _ = o.frame.WriteData(o.id+2, true, []byte("evil")) }),
		"an answer nobody asked for":    after(func(o *origin2) { o.id += 100; o.headers(true, ":status", "200") }),
		"window update of nothing":      after(func(o *origin2) { _ = o.frame.WriteWindowUpdate(o.id, 0) }),
		"window that overflows":         after(func(o *origin2) { _ = o.frame.WriteWindowUpdate(o.id, 1<<31-1) }),
		"connection's window overflows": after(func(o *origin2) { _ = o.frame.WriteWindowUpdate(0, 1<<31-1) }),
		"data over the window":          after(again(40_000, func(o *origin2) error { return o.frame.WriteData(o.id, false, make([]byte, 16<<10)) })),
		"frame over its size":           after(func(o *origin2) { _ = o.frame.WriteRawFrame(http2.FrameData, 0, o.id, make([]byte, 1<<20)) }),
		"garbage":                       func(o *origin2) { _, _ = io.WriteString(o, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil") },
		"unknown compression": after(func(o *origin2) {
			_ = o.frame.WriteRawFrame(http2.FrameHeaders, 5, o.id, []byte("\xff\xff\xff\xff\xff\xff\xff"))
		}),
		"DATA within a block": func(o *origin2) {
			_ = o.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: o.id, BlockFragment: []byte{0x88}})
			_ = o.frame.WriteData(o.id, true, []byte("evil"))
		},
	}
	for name, pair := range map[string][2]string{
		"upper case name": {"X-A", "1"}, "CR in a value": {"x-a", "1\rb"}, "LF in a value": {"x-a", "1\nb"},
		"NUL in a value": {"x-a", "\x00"}, "empty name": {"", "1"},
		"space in a name": {"x a", "1"}, "CRLF in a name": {"x-a: 1\r\nx-b", "1"}, "colon in a name": {"x:a", "1"},
		"leading space":         {"x-a", " 1"},
		"answer in a value":     {"x-a", "1\r\nContent-Length: 0\r\n\r\n" + evil},
		"set-cookie in a value": {"location", "/\r\nSet-Cookie: a=b"},
		"connection":            {"connection", "close"}, "transfer-encoding": {"transfer-encoding", "chunked"}, "upgrade": {"upgrade", "h2c"},
		"keep-alive":       {"keep-alive", "1"},
		"length with plus": {"content-length", "+4"}, "list of lengths": {"content-length", "4, 4"},
		"length in words": {"content-length", "four"},
	} {
		all[name] = say("evil", ":status", "200", pair[0], pair[1])
	}
	for _, status := range []string{"", "0", "20", "2000", "abc", "-20", "+20", "099", "2 0", "200 OK"} {
		all[":status "+strconv.Quote(status)] = say("evil", ":status", status)
	}
	return all
}

func pairsOf(name, value string, n int) (pairs []string) {
	for range n {
		pairs = append(pairs, name, value)
	}
	return pairs
}

// bombAnswer refers to one large entry of the dynamic table again and again.
func bombAnswer(o *origin2) {
	o.block.Reset()
	_ = o.enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = o.enc.WriteField(hpack.HeaderField{Name: "x-bomb", Value: strings.Repeat("b", 3500)})
	block := append(bytes.Clone(o.block.Bytes()), bytes.Repeat([]byte{0x80 | 62}, 12_000)...)
	_ = o.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: o.id, BlockFragment: block, EndHeaders: true, EndStream: true})
}

// floodsFromOrigins are frames without end behind a head.
func floodsFromOrigins() map[string]func(o *origin2) {
	raw := func(kind http2.FrameType, flags http2.Flags, stream bool, payload string) func(o *origin2) {
		return after(again(100_000, func(o *origin2) error {
			id := uint32(0)
			if stream {
				id = o.id
			}
			return o.frame.WriteRawFrame(kind, flags, id, []byte(payload))
		}))
	}
	block := func(payload string) func(o *origin2) {
		return func(o *origin2) {
			_ = o.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: o.id, BlockFragment: []byte{0x88}})
			again(100_000, func(o *origin2) error { return o.frame.WriteContinuation(o.id, false, []byte(payload)) })(o)
		}
	}
	return map[string]func(o *origin2){
		"SETTINGS":           raw(http2.FrameSettings, 0, false, ""),
		"PING":               raw(http2.FramePing, 0, false, "flooding"),
		"PRIORITY":           raw(http2.FramePriority, 0, true, "\x00\x00\x00\x00\x01"),
		"unknown frames":     raw(0xbe, 0, true, "x"),
		"WINDOW_UPDATE":      raw(http2.FrameWindowUpdate, 0, false, "\x00\x00\x00\x01"),
		"empty DATA":         raw(http2.FrameData, 0, true, ""),
		"padding":            raw(http2.FrameData, http2.FlagDataPadded, true, "\x04\x00\x00\x00\x00"),
		"resets":             raw(http2.FrameRSTStream, 0, true, "\x00\x00\x00\x00"),
		"CONTINUATION":       block("\x82"),
		"empty CONTINUATION": block(""),
		"large CONTINUATION": block(strings.Repeat("\x82", 16<<10)),
	}
}

// TestAnswers2 has an HTTP/2 origin answer each of the tables' answers on a connection that other requests share.
func TestAnswers2(t *testing.T) {
	t.Parallel()
	for group, cases := range map[string]map[string]func(o *origin2){"message": hostileAnswers2(), "flood": floodsFromOrigins()} {
		for name, hostile := range cases {
			t.Run(group+"/"+name, func(t *testing.T) {
				t.Parallel()
				for _, down := range []harness.Down{harness.H1, harness.H2C} {
					judge2(t, down, hostile, group == "flood")
				}
			})
		}
	}
}

// judge2 sends a hostile request between honest ones. With ends the connection to the origin ends with it, and requests that came over it
// meanwhile may fail, too.
func judge2(t *testing.T, down harness.Down, hostile func(o *origin2), ends bool) {
	t.Helper()
	addr := newOrigin2(t, nil, hostile)
	env := harness.New(t, harness.Combo{Down: down, Up: harness.UpH2C}, nil, func(o *harness.EnvOptions) {
		o.Backend = harness.Cluster("hostile", harness.UpH2C, addr)
		o.Limits = quick()
		o.Rule = func(r *config.Rule) { r.RequestTimeout = 2 * time.Second }
	})
	honest := func(path string) {
		t.Helper()
		r, err := harness.Do(env.Client, harness.Request{Target: path})
		for i := 0; ends && i < 10 && err == nil && r.Status == 502; i++ {
			r, err = harness.Do(env.Client, harness.Request{Target: path})
		}
		if err != nil || r.Err != nil || r.Status != 200 || string(r.Body) != path {
			t.Errorf("%s: an honest request for %s got %+v, %v", down, path, r, err)
		}
	}
	honest("/before")
	r, err := harness.Do(env.NewClient(t), harness.Request{Target: "/hostile"})
	if err == nil && r.Status < 400 && r.Err == nil {
		t.Errorf("%s: the client got %d %v %.40q", down, r.Status, r.Fields, r.Body)
	}
	for i := range 3 {
		honest("/behind" + strconv.Itoa(i))
	}
	if !down.IsH1() {
		return
	}
	b := &bed{Env: env}
	raw := b.send(t, "GET /hostile HTTP/1.1\r\nHost: a.test\r\n\r\nGET /next HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	got, err := answersOf(raw, "GET", "GET")
	if err != nil && !errors.Is(err, errCut) || len(got) > 0 && got[0].status < 400 {
		t.Errorf("the client got %+v, %v of %.300q", got, err, raw)
	}
}

// TestSettingsOfOrigins: settings that no client can live with cost the connection, and no request hangs for them.
func TestSettingsOfOrigins(t *testing.T) {
	t.Parallel()
	settings := func(all ...http2.Setting) func(o *origin2) {
		return func(o *origin2) { _ = o.frame.WriteSettings(all...) }
	}
	for name, greet := range map[string]func(o *origin2){
		"SETTINGS_MAX_FRAME_SIZE 0":             settings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 0}),
		"SETTINGS_MAX_FRAME_SIZE 1":             settings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}),
		"SETTINGS_MAX_FRAME_SIZE over its most": settings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 24}),
		"SETTINGS_INITIAL_WINDOW_SIZE over":     settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}),
		"SETTINGS_ENABLE_PUSH":                  settings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}),
		"SETTINGS of the wrong size":            func(o *origin2) { _ = o.frame.WriteRawFrame(http2.FrameSettings, 0, 0, []byte("12345")) },
		"PING before SETTINGS":                  func(o *origin2) { _ = o.frame.WritePing(false, [8]byte{}) },
		"SETTINGS_MAX_CONCURRENT_STREAMS 0":     settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}),
		"no window for any body":                settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}),
		"GOAWAY at once":                        func(o *origin2) { _ = o.frame.WriteSettings(); _ = o.frame.WriteGoAway(0, http2.ErrCodeNo, nil) },
		"nothing":                               func(*origin2) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := newOrigin2(t, greet, say("", ":status", "200"))
			env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH2C}, nil, func(o *harness.EnvOptions) {
				o.Backend = harness.Cluster("hostile", harness.UpH2C, addr)
				o.Rule = func(r *config.Rule) { r.RequestTimeout = time.Second }
			})
			for range 3 {
				r, err := harness.Do(env.NewClient(t), harness.Request{Method: "POST", Body: []byte("some body")})
				if err != nil || r.Status < 500 && r.Status != 200 {
					t.Errorf("got %+v, %v, want 5xx, or 200", r, err)
				}
			}
		})
	}
}
