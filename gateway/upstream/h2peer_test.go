package upstream

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h2Peer is an endpoint below HTTP/2's semantics that a test drives: each connection is an h2PeerConn.
type h2Peer struct {
	t     testing.TB
	addr  netip.AddrPort
	conns chan *h2PeerConn
}

// h2PeerConn is the endpoint's end of a connection. The test sends what it likes; what comes is in seen, and requests are answered by nobody
// else.
type h2PeerConn struct {
	t testing.TB
	*http2.Framer
	net.Conn
	seen chan h2Seen
}

// h2Seen is a frame that came.
type h2Seen struct {
	kind   http2.FrameType
	stream uint32
	flags  http2.Flags
	data   string // payload of DATA and PING
	code   http2.ErrCode
	fields []hpack.HeaderField
}

func (s h2Seen) ended() bool { return s.flags.Has(http2.FlagDataEndStream) }

// field returns a field of HEADERS.
func (s h2Seen) field(name string) string {
	for _, f := range s.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func newH2Peer(t testing.TB, settings ...http2.Setting) *h2Peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &h2Peer{t: t, addr: netip.MustParseAddrPort(l.Addr().String()), conns: make(chan *h2PeerConn, 100)}
	var all sync.WaitGroup
	var accepted []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			accepted = append(accepted, c)
			all.Go(func() { p.serve(c, settings) })
		}
		for _, c := range accepted {
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return p
}

func (p *h2Peer) serve(c net.Conn, settings []http2.Setting) {
	defer c.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	conn := &h2PeerConn{t: p.t, Framer: http2.NewFramer(c, c), Conn: c, seen: make(chan h2Seen, 10_000)}
	conn.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	defer close(conn.seen)
	if conn.WriteSettings(settings...) != nil {
		return
	}
	p.conns <- conn
	for {
		frame, err := conn.ReadFrame()
		if err != nil {
			return
		}
		head := frame.Header()
		seen := h2Seen{kind: head.Type, stream: head.StreamID, flags: head.Flags}
		switch f := frame.(type) {
		case *http2.DataFrame:
			seen.data = string(f.Data())
		case *http2.PingFrame:
			seen.data = string(f.Data[:])
		case *http2.RSTStreamFrame:
			seen.code = f.ErrCode
		case *http2.GoAwayFrame:
			seen.code = f.ErrCode
		case *http2.MetaHeadersFrame:
			seen.fields = slices.Clone(f.Fields)
		}
		conn.seen <- seen
	}
}

// conn waits for a connection.
func (p *h2Peer) conn() *h2PeerConn {
	p.t.Helper()
	return receive(p.t, p.conns, "a connection")
}

// next waits for a frame of this type.
func (c *h2PeerConn) next(kind http2.FrameType) h2Seen {
	c.t.Helper()
	for {
		seen, ok := receiveOK(c.t, c.seen, kind.String())
		if !ok {
			c.t.Fatalf("%s: the connection ended", kind)
		}
		if seen.kind == kind {
			return seen
		}
	}
}

// ends waits for the connection's end and returns the code of GOAWAY.
func (c *h2PeerConn) ends() (code http2.ErrCode) {
	c.t.Helper()
	for {
		seen, ok := receiveOK(c.t, c.seen, "the end of the connection")
		if !ok {
			return code
		}
		if seen.kind == http2.FrameGoAway {
			code = seen.code
		}
	}
}

// head sends a response head.
func (c *h2PeerConn) head(stream uint32, end bool, pairs ...string) {
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(pairs...), EndStream: end, EndHeaders: true})
}

// answer sends a whole response.
func (c *h2PeerConn) answer(stream uint32, text string) {
	c.head(stream, false, ":status", "200")
	_ = c.WriteData(stream, true, []byte(text))
}

func receiveOK[T any](t testing.TB, c <-chan T, what string) (v T, ok bool) {
	t.Helper()
	type got struct {
		v  T
		ok bool
	}
	all := make(chan got, 1)
	select {
	case v, ok = <-c:
		return v, ok
	default:
	}
	go func() {
		v, ok := <-c
		all <- got{v, ok}
	}()
	g := receive(t, all, what)
	return g.v, g.ok
}

// asking is an attempt under way.
type asking struct {
	a     *Attempt
	life  *exchange.Life
	fault chan *exchange.Fault
}

// ask starts an attempt.
func ask(e *Endpoint, head *exchange.Head, body exchange.Body) *asking {
	r := &asking{a: &Attempt{}, life: &exchange.Life{}, fault: make(chan *exchange.Fault, 1)}
	r.a.Reset()
	r.a.Request, r.a.Body = head, body
	r.a.Life.Begin(r.life)
	go func() { r.fault <- e.RoundTrip(r.a) }()
	return r
}

// askGet starts a GET.
func askGet(t *testing.T, e *Endpoint) *asking {
	return ask(e, request(t, "GET", "/"), exchange.NoBody)
}

// wants waits for the answer and reads it.
func (r *asking) wants(t *testing.T, want string) {
	t.Helper()
	if fault := receive(t, r.fault, "the answer"); fault != nil {
		t.Fatal(fault)
	}
	text, err := io.ReadAll(r.a.Answer)
	if err != nil || string(text) != want {
		t.Errorf("got %.100q, %v, want %.100q", text, err, want)
	}
	r.end()
}

// fails waits for a fault.
func (r *asking) fails(t *testing.T) *exchange.Fault {
	t.Helper()
	fault := receive(t, r.fault, "the fault")
	r.end()
	if fault == nil {
		t.Fatal("got an answer")
	}
	return fault
}

func (r *asking) end() {
	if r.a.Answer != nil {
		_ = r.a.Answer.Close()
	}
	r.a.End()
}

// bytesOf is n bytes that tell where they stand.
func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// unsized is a body of unknown length that does not lie in memory.
type unsized struct{ io.Reader }

func streamed(b []byte) exchange.Body     { return unsized{bytes.NewReader(b)} }
func (unsized) Close() error              { return nil }
func (unsized) Length() int64             { return -1 }
func (unsized) Trailers() exchange.Fields { return nil }

// rawPeer is an endpoint that sends the same bytes on every connection and closes its side.
type rawPeer struct {
	addr  netip.AddrPort
	conns atomic.Int32
	send  atomic.Pointer[[]byte]
}

func newRawPeer(t testing.TB) *rawPeer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &rawPeer{addr: netip.MustParseAddrPort(l.Addr().String())}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Add(1)
			all.Go(func() {
				_, _ = c.Write(*p.send.Load())
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return p
}

// askPath starts a GET that echoPath answers.
func askPath(t *testing.T, e *Endpoint, path string) *asking {
	return ask(e, request(t, "GET", path), exchange.NoBody)
}

// echoPath answers a request with its path.
func (c *h2PeerConn) echoPath(seen h2Seen) { c.answer(seen.stream, seen.field(":path")) }
