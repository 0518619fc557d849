package downstream

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h2peer is a client that speaks in frames, over an implementation of them that is not ours.
type h2peer struct {
	t     testing.TB
	conn  net.Conn
	tcp   *net.TCPConn
	frame *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder

	settings map[http2.SettingID]uint32
	streams  map[uint32]*h2answer
	goAways  []goAway
	pings    [][8]byte // answers
	acked    int       // SETTINGS of ours
	credit   uint32    // WINDOW_UPDATE of the connection, in sum
	silent   bool      // do not acknowledge SETTINGS, nor answer PING
}

type goAway struct {
	last  uint32
	code  http2.ErrCode
	debug string
}

// h2answer is what came on one stream.
type h2answer struct {
	status   int
	interim  []int
	fields   map[string]string
	body     []byte
	frames   int // of DATA
	trailers map[string]string
	ended    bool
	reset    bool
	code     http2.ErrCode
	credit   uint32
}

// visit2 opens a connection and sends the client's preface.
func (h *house) visit2(t testing.TB, settings ...http2.Setting) *h2peer {
	t.Helper()
	p := h.dial2(t)
	if _, err := io.WriteString(p.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	p.ok(p.frame.WriteSettings(settings...))
	return p
}

func (h *house) dial2(t testing.TB, changes ...func(c *tls.Config)) *h2peer {
	t.Helper()
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	p := &h2peer{t: t, conn: conn, settings: map[http2.SettingID]uint32{}, streams: map[uint32]*h2answer{}}
	p.tcp, _ = conn.(*net.TCPConn)
	if h.secure {
		config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, ServerName: "x.test"}
		for _, change := range changes {
			change(config)
		}
		secure := tls.Client(conn, config)
		if err := secure.Handshake(); err != nil {
			t.Fatal(err)
		}
		p.conn = secure
	}
	p.frame = http2.NewFramer(p.conn, p.conn)
	p.frame.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.frame.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.block)
	return p
}

func (p *h2peer) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// fields makes a request's fields of pairs that come behind, or in the place of, the usual pseudo-fields.
func h2fields(pairs ...string) (fields []hpack.HeaderField) {
	usual := []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "x.test"}
	rest := []string{}
	for i := 0; i < len(pairs); i += 2 {
		replaced := false
		for j := 0; j < len(usual); j += 2 {
			if usual[j] == pairs[i] {
				usual[j+1], replaced = pairs[i+1], true
			}
		}
		if !replaced && strings.HasPrefix(pairs[i], ":") {
			usual = append(usual, pairs[i], pairs[i+1])
		} else if !replaced {
			rest = append(rest, pairs[i], pairs[i+1])
		}
	}
	usual = append(usual, rest...)
	for i := 0; i < len(usual); i += 2 {
		fields = append(fields, hpack.HeaderField{Name: usual[i], Value: usual[i+1]})
	}
	return fields
}

func (p *h2peer) encode(fields []hpack.HeaderField) []byte {
	p.block.Reset()
	for _, f := range fields {
		p.ok(p.enc.WriteField(f))
	}
	return p.block.Bytes()
}

// open sends a request's head.
func (p *h2peer) open(id uint32, end bool, pairs ...string) {
	p.t.Helper()
	p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: p.encode(h2fields(pairs...)), EndStream: end, EndHeaders: true,
	}))
}

func (p *h2peer) stream(id uint32) *h2answer {
	a := p.streams[id]
	if a == nil {
		a = &h2answer{}
		p.streams[id] = a
	}
	return a
}

// step takes one frame.
func (p *h2peer) step() error {
	f, err := p.frame.ReadFrame()
	if err != nil {
		return err
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			p.acked++
			return nil
		}
		_ = f.ForeachSetting(func(s http2.Setting) error { p.settings[s.ID] = s.Val; return nil })
		if !p.silent {
			return p.frame.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if f.IsAck() {
			p.pings = append(p.pings, f.Data)
		} else if !p.silent {
			return p.frame.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			p.credit += f.Increment
		} else {
			p.stream(f.StreamID).credit += f.Increment
		}
	case *http2.GoAwayFrame:
		p.goAways = append(p.goAways, goAway{f.LastStreamID, f.ErrCode, string(f.DebugData())})
	case *http2.RSTStreamFrame:
		a := p.stream(f.StreamID)
		a.reset, a.code = true, f.ErrCode
	case *http2.DataFrame:
		a := p.stream(f.StreamID)
		if len(f.Data()) > 0 { // an empty one is the end alone
			a.frames++
		}
		a.body = append(a.body, f.Data()...)
		a.ended = a.ended || f.StreamEnded()
	case *http2.MetaHeadersFrame:
		p.head(f)
	}
	return nil
}

func (p *h2peer) head(f *http2.MetaHeadersFrame) {
	a := p.stream(f.StreamID)
	fields := map[string]string{}
	for _, field := range f.RegularFields() {
		fields[field.Name] = field.Value
	}
	status, _ := strconv.Atoi(f.PseudoValue("status"))
	switch {
	case status == 0:
		a.trailers = fields
	case status < 200:
		a.interim = append(a.interim, status)
	default:
		a.status, a.fields = status, fields
	}
	a.ended = a.ended || f.StreamEnded()
}

// until takes frames until something holds.
func (p *h2peer) until(what string, holds func() bool) {
	p.t.Helper()
	for !holds() {
		if err := p.step(); err != nil {
			p.t.Fatalf("%v while waiting for %s; streams %+v, GOAWAY %+v", err, what, p.streams, p.goAways)
		}
	}
}

// answer waits for the end of a stream's answer.
func (p *h2peer) answer(id uint32) *h2answer {
	p.t.Helper()
	a := p.stream(id)
	p.until("the answer of stream "+strconv.Itoa(int(id)), func() bool { return a.ended || a.reset })
	return a
}

// end reads until the server ends the connection and returns the last GOAWAY.
func (p *h2peer) end() goAway {
	p.t.Helper()
	for {
		if err := p.step(); err != nil {
			if err, ok := errors.AsType[net.Error](err); ok && err.Timeout() {
				p.t.Fatalf("the connection goes on; streams %+v, GOAWAY %+v", p.streams, p.goAways)
			}
			break
		}
	}
	if len(p.goAways) == 0 {
		return goAway{code: 0xffff}
	}
	return p.goAways[len(p.goAways)-1]
}

// lives fails unless the connection serves a request.
func (p *h2peer) lives(id uint32) {
	p.t.Helper()
	p.open(id, true)
	if a := p.answer(id); a.status != 200 {
		p.t.Fatalf("a request after it: %+v", a)
	}
}

func TestH2Requests(t *testing.T) {
	tests := map[string]struct {
		fields   []string
		body     []string // DATA frames
		trailers []string
		want     string
	}{
		"get":        {nil, nil, nil, "GET / x.test HTTP/2\n0:"},
		"target":     {[]string{":path", "/a?b;c"}, nil, nil, "GET /a?b;c x.test HTTP/2\n0:"},
		"fields":     {[]string{"x-a", "1", "x-b", ""}, nil, nil, "x-a=1\nx-b=\n0:"},
		"host":       {[]string{"host", "x.test"}, nil, nil, "GET / x.test HTTP/2\n0:"},
		"length":     {[]string{":method", "POST", "content-length", "5"}, []string{"hello"}, nil, "content-length=5\n5:hello"},
		"unknown":    {[]string{":method", "POST"}, []string{"he", "llo"}, nil, ":hello"},
		"empty":      {[]string{":method", "POST"}, []string{""}, nil, "POST / x.test HTTP/2\n"},
		"trailers":   {[]string{":method", "POST", "te", "trailers"}, []string{"hi"}, []string{"x-sum", "7"}, "-1:hi\nx-sum=7"},
		"large":      {[]string{":method", "POST"}, []string{strings.Repeat("d", 16384), strings.Repeat("e", 16384)}, nil, "de"},
		"only trail": {[]string{":method", "POST"}, nil, []string{"x-sum", "8"}, "-1:\nx-sum=8"},
	}
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo)})
		p := h.visit2(t)
		id := uint32(1)
		for name, tc := range tests {
			p.open(id, tc.body == nil && tc.trailers == nil, tc.fields...)
			for i, part := range tc.body {
				p.ok(p.frame.WriteData(id, i == len(tc.body)-1 && tc.trailers == nil, []byte(part)))
			}
			if tc.trailers != nil {
				fields := []hpack.HeaderField{{Name: tc.trailers[0], Value: tc.trailers[1]}}
				p.ok(p.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields), EndStream: true, EndHeaders: true}))
			}
			a := p.answer(id)
			if a.status != 200 || !strings.Contains(string(a.body), tc.want) || a.fields["content-length"] != strconv.Itoa(len(a.body)) {
				t.Errorf("%s: got %d %v %.200q, want %.200q in it", name, a.status, a.fields, a.body, tc.want)
			}
			id += 2
		}
		if n := h.count(exchange.HTTP2); n != 1 {
			t.Errorf("%d connections are counted, want 1", n)
		}
	})
}
