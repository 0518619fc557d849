package hostile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/test/harness"
)

// calm is GOAWAY ENHANCE_YOUR_CALM.
func calm() []end { return []end{{over: true, code: uint64(http2.ErrCodeEnhanceYourCalm)}} }

// attacker2 is a client of HTTP/2 that keeps to no rule.
type attacker2 struct {
	net.Conn
	out   *bufio.Writer
	frame *http2.Framer // writes to out

	block bytes.Buffer
	enc   *hpack.Encoder

	gone    chan struct{}
	mu      sync.Mutex // guards code
	code    uint64
	resets  atomic.Int64 // RST_STREAM frames that came
	answers atomic.Int64 // HEADERS frames that came
}

// attack2 connects, and reads unless deaf.
func (f *floodBed) attack2(t testing.TB, deaf bool, settings ...http2.Setting) *attacker2 {
	conn, err := net.Dial("tcp", f.Address())
	if err != nil {
		t.Error(err)
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(harness.Patience))
	a := &attacker2{Conn: conn, out: bufio.NewWriterSize(conn, 16<<10), gone: make(chan struct{})}
	a.frame = http2.NewFramer(a.out, nil)
	a.frame.AllowIllegalWrites = true
	a.enc = hpack.NewEncoder(&a.block)
	_, _ = a.out.WriteString(http2.ClientPreface)
	_ = a.frame.WriteSettings(settings...)
	_ = a.frame.WriteSettingsAck()
	if !deaf {
		go a.read()
	}
	return a
}

// read drops what comes but for how it ends.
func (a *attacker2) read() {
	defer close(a.gone)
	in := bufio.NewReader(a.Conn)
	var head [9]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		switch http2.FrameType(head[3]) {
		case http2.FrameGoAway:
			payload := make([]byte, size)
			if _, err := io.ReadFull(in, payload); err != nil || size < 8 {
				return
			}
			a.mu.Lock()
			a.code = uint64(binary.BigEndian.Uint32(payload[4:]))
			a.mu.Unlock()
			continue
		case http2.FrameRSTStream:
			a.resets.Add(1)
		case http2.FrameHeaders:
			a.answers.Add(1)
		}
		if _, err := in.Discard(size); err != nil {
			return
		}
	}
}

// fields encodes a request's field section.
func (a *attacker2) fields(pairs ...string) []byte {
	a.block.Reset()
	for _, f := range request(harness.H2C, pairs...) {
		_ = a.enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	return a.block.Bytes()
}

// open begins a request.
func (a *attacker2) open(id uint32, ended bool, pairs ...string) {
	_ = a.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.fields(pairs...), EndHeaders: true, EndStream: ended})
}

// most is how often an attack is repeated when nobody stops it.
const most = 30_000

// repeat calls send, with the identifier of a new stream each, until the gateway ends the connection or it was called times times.
func (a *attacker2) repeat(f *floodBed, times uint32, send func(id uint32)) end {
	for i := range times {
		send(2*i + 1)
		select {
		case <-a.gone:
			return a.end(f)
		default:
		}
		if _, err := a.out.Write(nil); err != nil {
			break // bufio keeps the first error
		}
	}
	_ = a.out.Flush()
	return a.end(f)
}

// end returns how the connection ended. One that the gateway keeps is kept, too, until the flood is over.
func (a *attacker2) end(f *floodBed) end {
	_ = a.out.Flush()
	select {
	case <-a.gone:
		_ = a.Close()
		a.mu.Lock()
		defer a.mu.Unlock()
		return end{true, a.code}
	case <-time.After(2 * time.Second): // it may well go on
		a.closeAfter(f)
		return end{}
	}
}

func (a *attacker2) closeAfter(f *floodBed) {
	go func() {
		<-f.held
		_ = a.Close()
	}()
}

// repeated2 is a flood of what send sends.
func repeated2(send func(a *attacker2, id uint32), before ...func(a *attacker2)) func(testing.TB, *floodBed) end {
	return func(t testing.TB, f *floodBed) end {
		a := f.attack2(t, false)
		if a == nil {
			return end{}
		}
		for _, do := range before {
			do(a)
		}
		return a.repeat(f, most, func(id uint32) { send(a, id) })
	}
}

// floodsH2 are frames that ask for nothing.
func floodsH2() map[string]flood {
	openPost := func(a *attacker2) { a.open(1, false, ":method", "POST") }
	openBlock := func(a *attacker2) {
		_ = a.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.fields()})
	}
	raw := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) func(*attacker2, uint32) {
		return func(a *attacker2, _ uint32) { _ = a.frame.WriteRawFrame(kind, flags, stream, []byte(payload)) }
	}
	all := map[string]flood{}
	for name, attack := range map[string]func(testing.TB, *floodBed) end{
		"SETTINGS":                      repeated2(raw(http2.FrameSettings, 0, 0, "\x00\x04\x00\x00\xff\xff")),
		"empty SETTINGS":                repeated2(raw(http2.FrameSettings, 0, 0, "")),
		"SETTINGS that change windows":  repeated2(func(a *attacker2, id uint32) { _ = a.frame.WriteSettings(http2.Setting{ID: 4, Val: id % 1000}) }),
		"SETTINGS acknowledgements":     repeated2(raw(http2.FrameSettings, http2.FlagSettingsAck, 0, "")),
		"PING":                          repeated2(raw(http2.FramePing, 0, 0, "flooding")),
		"PING acknowledgements":         repeated2(raw(http2.FramePing, http2.FlagPingAck, 0, "flooding")),
		"PRIORITY":                      repeated2(func(a *attacker2, id uint32) { _ = a.frame.WritePriority(id, http2.PriorityParam{Weight: 1}) }),
		"PRIORITY_UPDATE":               repeated2(raw(0x10, 0, 0, "\x00\x00\x00\x01u=1")),
		"WINDOW_UPDATE":                 repeated2(raw(http2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x01")),
		"WINDOW_UPDATE of a stream":     repeated2(raw(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x01"), openPost),
		"WINDOW_UPDATE of past streams": repeated2(raw(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x01"), func(a *attacker2) { a.open(1, true) }),
		"GOAWAY":                        repeated2(raw(http2.FrameGoAway, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00")),
		"unknown frames":                repeated2(raw(0xbe, 0, 0, "")),
		"unknown frames of a stream":    repeated2(raw(0xbe, 0, 1, "x"), openPost),
		"large unknown frames":          repeated2(raw(0xbe, 0, 0, strings.Repeat("x", 16<<10))),
		"empty DATA":                    repeated2(raw(http2.FrameData, 0, 1, ""), openPost),
		"padding alone":                 repeated2(raw(http2.FrameData, http2.FlagDataPadded, 1, "\x10"+strings.Repeat("\x00", 16)), openPost),
		"empty CONTINUATION":            repeated2(raw(http2.FrameContinuation, 0, 1, ""), openBlock),
		"CONTINUATION of a byte":        repeated2(raw(http2.FrameContinuation, 0, 1, "\x82"), openBlock),
		"large CONTINUATION":            repeated2(raw(http2.FrameContinuation, 0, 1, strings.Repeat("\x82", 16<<10)), openBlock),
		"CONTINUATION in every request": repeated2(func(a *attacker2, id uint32) {
			block := a.fields()
			_ = a.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true})
			for range 20 {
				_ = a.frame.WriteContinuation(id, false, nil)
			}
			_ = a.frame.WriteContinuation(id, true, nil)
		}),
	} {
		all[name] = flood{down: harness.H2C, attack: attack, cut: calm()}
	}
	return all
}

// resetsH2 are requests that are given up, by the client or, provoked, by the gateway (CVE-2023-44487, CVE-2025-8671).
func resetsH2() map[string]flood {
	hang := func(a *attacker2, id uint32) { a.open(id, true, ":path", "/hang") }
	hangPost := func(a *attacker2, id uint32, pairs ...string) {
		a.open(id, false, append([]string{":method", "POST", ":path", "/hang"}, pairs...)...)
	}
	all := map[string]flood{}
	for name, send := range map[string]func(a *attacker2, id uint32){
		"by the client": func(a *attacker2, id uint32) {
			hang(a, id)
			_ = a.frame.WriteRSTStream(id, http2.ErrCodeCancel)
		},
		"by the client, of uploads": func(a *attacker2, id uint32) {
			hangPost(a, id)
			_ = a.frame.WriteData(id, false, []byte("x"))
			_ = a.frame.WriteRSTStream(id, http2.ErrCodeNo)
		},
		"by a window update of nothing": func(a *attacker2, id uint32) {
			hang(a, id)
			_ = a.frame.WriteWindowUpdate(id, 0)
		},
		"by a window that overflows": func(a *attacker2, id uint32) {
			hang(a, id)
			_ = a.frame.WriteWindowUpdate(id, 1<<31-1)
		},
		"by fields after the end": func(a *attacker2, id uint32) {
			hang(a, id)
			a.open(id, true)
		},
		"by data after the end": func(a *attacker2, id uint32) {
			hang(a, id)
			_ = a.frame.WriteData(id, true, []byte("x"))
		},
		"by a body over its length": func(a *attacker2, id uint32) {
			hangPost(a, id, "content-length", "1")
			_ = a.frame.WriteData(id, true, []byte("xx"))
		},
		"by a stream that depends on itself": func(a *attacker2, id uint32) {
			hang(a, id)
			_ = a.frame.WritePriority(id, http2.PriorityParam{StreamDep: id})
		},
		"by a PRIORITY of the wrong size": func(a *attacker2, id uint32) {
			hang(a, id)
			_ = a.frame.WriteRawFrame(http2.FramePriority, 0, id, []byte("1"))
		},
		"by trailers that do not end": func(a *attacker2, id uint32) {
			hangPost(a, id)
			_ = a.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.fields(), EndHeaders: true})
		},
		"by malformed requests":                 func(a *attacker2, id uint32) { a.open(id, true, ":path", "/hang", "connection", "close") },
		"by requests over the limit of streams": func(a *attacker2, id uint32) { hang(a, id) },
	} {
		all[name] = flood{down: harness.H2C, attack: repeated2(send), cut: calm(), served: 1000}
	}
	// Whether the stream is half-closed or closed by then is the gateway's affair: RFC 9113 5.1 has the connection end for the latter.
	for _, name := range []string{"by fields after the end", "by data after the end"} {
		f := all[name]
		f.cut = append(calm(), end{over: true, code: uint64(http2.ErrCodeStreamClosed)})
		all[name] = f
	}
	return all
}

// slowStreams is how many large answers are asked for and not read.
const slowStreams = 100

// slowReadsH2 have the gateway hold what they do not take, or decode what they did not send.
func slowReadsH2() map[string]flood {
	noWindow := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}
	big := func(deaf bool, settings ...http2.Setting) func(testing.TB, *floodBed) end {
		return func(t testing.TB, f *floodBed) end {
			a := f.attack2(t, deaf, settings...)
			if a == nil {
				return end{}
			}
			for i := range uint32(slowStreams) {
				a.open(2*i+1, true, ":path", "/big")
			}
			_ = a.out.Flush()
			if !f.wait(slowStreams, false) {
				t.Error("the requests do not come to the origin")
			}
			a.closeAfter(f)
			return end{}
		}
	}
	return map[string]flood{
		"no window for any stream":        {down: harness.H2C, attack: big(false, noWindow), heap: 48, givesUp: true},
		"no window of the connection":     {down: harness.H2C, attack: big(false), heap: 48, givesUp: true},
		"a window of a byte, and another": {down: harness.H2C, attack: sipped2, heap: 48, givesUp: true},
		"nothing is read":                 {down: harness.H2C, attack: big(true, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}), heap: 48, givesUp: true},
		"answers to PING are not read":    {down: harness.H2C, attack: deafPing, cut: []end{{over: true}}},
		"a large field, again and again":  {down: harness.H2C, attack: bomb("x-bomb", strings.Repeat("b", 3500), false), cut: calm()},
		"a small field, again and again":  {down: harness.H2C, attack: bomb("a", "", false), cut: calm()},
		"a cookie's crumb, and again":     {down: harness.H2C, attack: bomb("cookie", "a=b", false), cut: calm()},
		"a large field in every trailers": {down: harness.H2C, attack: bomb("x-bomb", strings.Repeat("b", 3500), true), cut: calm()},
	}
}

// sipped2 opens a window of no bytes a byte at a time, for each of a few streams.
func sipped2(t testing.TB, f *floodBed) end {
	a := f.attack2(t, false, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	if a == nil {
		return end{}
	}
	const streams = 10
	for i := range uint32(streams) {
		a.open(2*i+1, true, ":path", "/huge")
	}
	_ = a.out.Flush()
	if !f.wait(streams, false) {
		t.Error("the requests do not come to the origin")
	}
	go func() {
		defer a.Close()
		pace := time.NewTicker(100 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-f.held:
				return
			case <-a.gone:
				return
			case <-pace.C:
				for i := range uint32(streams) {
					_ = a.frame.WriteWindowUpdate(2*i+1, 1)
				}
				_ = a.out.Flush()
			}
		}
	}()
	return end{}
}

// deafPing asks for answers that it does not read. That its connection has ended shows when it writes.
func deafPing(t testing.TB, f *floodBed) end {
	a := f.attack2(t, true)
	if a == nil {
		return end{}
	}
	defer a.Close()
	for range 10 * most {
		if a.frame.WritePing(false, [8]byte{}) != nil {
			return end{over: true}
		}
	}
	return end{}
}

// bombs is how many header bombs a client may send at the very most before it is cut off.
const bombs = 500

// bomb puts a field into the dynamic table and then refers to it again and again, in each request's head or, behind it, in its trailers.
func bomb(name, value string, trailers bool) func(testing.TB, *floodBed) end {
	references := bytes.Repeat([]byte{0x80 | 62}, 16_000) // the newest entry of the dynamic table
	return func(t testing.TB, f *floodBed) end {
		a := f.attack2(t, false)
		if a == nil {
			return end{}
		}
		a.open(1, true, name, value)
		return a.repeat(f, bombs, func(id uint32) {
			block := references
			if trailers {
				a.open(id+2, false, ":method", "POST")
			} else {
				block = append(bytes.Clone(a.fields()), references...)
			}
			_ = a.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: id + 2, BlockFragment: block, EndHeaders: true, EndStream: true})
		})
	}
}
