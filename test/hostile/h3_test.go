package hostile

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/test/harness"
)

// Error codes of HTTP/3 and QPACK (RFC 9114 8.1, RFC 9204 6).
const (
	h3StreamCreation  = 0x103
	h3ClosedCritical  = 0x104
	h3FrameUnexpected = 0x105
	h3FrameError      = 0x106
	h3ExcessiveLoad   = 0x107
	h3IDError         = 0x108
	h3SettingsError   = 0x109
	h3MissingSettings = 0x10a
	h3Incomplete      = 0x10d
	qpackDecompress   = 0x200
	qpackEncoder      = 0x201
	qpackDecoder      = 0x202
)

// dialQUIC opens a connection that says nothing of HTTP/3 by itself. It ends with the test.
func (b *bed) dialQUIC(t testing.TB) *quic.Conn {
	t.Helper()
	conn, err := b.tryQUIC()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0x100, "") })
	return conn
}

func (b *bed) tryQUIC() (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	tlsConf := harness.ClientTLS(harness.DefaultHost)
	tlsConf.NextProtos = []string{"h3"}
	return quic.DialAddr(ctx, b.Address(), tlsConf, &quic.Config{MaxIdleTimeout: harness.Patience})
}

// frame is one HTTP/3 frame.
func frame(kind uint64, payload string) string {
	head := quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload)))
	return string(head) + payload
}

// varints are numbers as QUIC writes them.
func varints(numbers ...uint64) string {
	var b []byte
	for _, n := range numbers {
		b = quicvarint.Append(b, n)
	}
	return string(b)
}

// headers is a HEADERS frame.
func headers(fields harness.Fields) string {
	return frame(harness.H3Headers, string(harness.FieldBlock(fields)))
}

// breach is what a client does on a connection and the code that the connection ends with; on a stream of a request when code is that of
// a stream.
type breach struct {
	uni     []string // unidirectional streams, with their types; those that begin with "!" end at once
	request string   // bytes of a request's stream
	code    uint64
	stream  bool // only the stream ends
}

const settled = "\x00\x04\x00" // a control stream with SETTINGS

func breaches() map[string]breach {
	get := headers(request(harness.H3))
	post := headers(request(harness.H3, ":method", "POST"))
	data := frame(harness.H3Data, "hi")
	section := func(block string) string { return frame(harness.H3Headers, block) }
	cases := map[string]breach{
		"DATA first":                    {request: data + get, code: h3FrameUnexpected},
		"DATA after trailers":           {request: post + data + headers(harness.F("x-a", "1")) + data, code: h3FrameUnexpected},
		"HEADERS after trailers":        {request: post + data + headers(harness.F("x-a", "1")) + headers(harness.F("x-a", "1")), code: h3FrameUnexpected},
		"frame cut by the end":          {request: post + "\x00\x10hi", code: h3FrameError},
		"HEADERS cut by the end":        {request: get[:len(get)-3], code: h3FrameError},
		"nothing but the end":           {request: "", code: h3Incomplete, stream: true},
		"unknown frame and the end":     {request: frame(0x21, "grease"), code: h3Incomplete, stream: true},
		"reference to a dynamic table":  {request: section("\x02\x00\xd1\x80"), code: qpackDecompress},
		"reference beyond its base":     {request: section("\x00\x00\xd1\x10"), code: qpackDecompress},
		"static index that is none":     {request: section("\x00\x00\xff\x80\x01"), code: qpackDecompress},
		"integer without end":           {request: section("\x00\x00\xff" + strings.Repeat("\xff", 20)), code: qpackDecompress},
		"string longer than the block":  {request: section("\x00\x00\x27\x7fx"), code: qpackDecompress},
		"Huffman code with a long end":  {request: section("\x00\x00\x5f\x10\x82\xff\xff"), code: qpackDecompress},
		"empty block":                   {request: section(""), code: qpackDecompress},
		"two control streams":           {uni: []string{settled, settled}, code: h3StreamCreation},
		"two encoder streams":           {uni: []string{settled, "\x02", "\x02"}, code: h3StreamCreation},
		"two decoder streams":           {uni: []string{settled, "\x03", "\x03"}, code: h3StreamCreation},
		"push stream":                   {uni: []string{settled, "\x01\x00"}, code: h3StreamCreation},
		"no SETTINGS":                   {uni: []string{"\x00" + frame(0x7, "\x00")}, code: h3MissingSettings},
		"SETTINGS twice":                {uni: []string{settled + "\x04\x00"}, code: h3FrameUnexpected},
		"a setting twice":               {uni: []string{"\x00" + frame(0x4, varints(0x6, 1, 0x6, 1))}, code: h3SettingsError},
		"a setting cut off":             {uni: []string{"\x00" + frame(0x4, varints(0x6))}, code: h3FrameError},
		"control stream that ends":      {uni: []string{"!" + settled}, code: h3ClosedCritical},
		"encoder stream that ends":      {uni: []string{settled, "!\x02"}, code: h3ClosedCritical},
		"decoder stream that ends":      {uni: []string{settled, "!\x03"}, code: h3ClosedCritical},
		"DATA on the control stream":    {uni: []string{settled + data}, code: h3FrameUnexpected},
		"HEADERS on the control stream": {uni: []string{settled + get}, code: h3FrameUnexpected},
		"MAX_PUSH_ID that shrinks":      {uni: []string{settled + frame(0xd, varints(5)) + frame(0xd, varints(4))}, code: h3IDError},
		"insertion without a table":     {uni: []string{settled, "\x02\xc1\x01a"}, code: qpackEncoder},
		"table over its bound":          {uni: []string{settled, "\x02\x3f\xe1\x1f"}, code: qpackEncoder},
		"acknowledgement of nothing":    {uni: []string{settled, "\x03\x80"}, code: qpackDecoder},
		"increment by nothing":          {uni: []string{settled, "\x03\x00"}, code: qpackDecoder},
		"increment of nothing":          {uni: []string{settled, "\x03\x01"}, code: qpackDecoder},
	}
	for name, kind := range map[string]uint64{
		"SETTINGS": 0x4, "GOAWAY": 0x7, "MAX_PUSH_ID": 0xd, "CANCEL_PUSH": 0x3, "PUSH_PROMISE": 0x5, "HTTP/2's PRIORITY": 0x2, "HTTP/2's PING": 0x6,
		"HTTP/2's WINDOW_UPDATE": 0x8, "HTTP/2's CONTINUATION": 0x9,
	} {
		cases[name+" for a request"] = breach{request: frame(kind, "\x00") + get, code: h3FrameUnexpected}
		cases[name+" behind a request"] = breach{request: post + frame(kind, "\x00"), code: h3FrameUnexpected}
	}
	for _, id := range []uint64{0x2, 0x3, 0x4, 0x5} {
		cases["HTTP/2's setting "+varints(id+'0')] = breach{uni: []string{"\x00" + frame(0x4, varints(id, 1))}, code: h3SettingsError}
	}
	return cases
}

// TestHTTP3Breaches: what breaks the protocol ends the connection, nothing of it reaches the origin, and others are served on.
func TestHTTP3Breaches(t *testing.T) {
	t.Parallel()
	b := newBed(t, harness.H3, harness.AnswerOK, limited(func(l *downstream.Limits) { l.IdleTimeout = harness.Patience }))
	for name, breach := range breaches() {
		conn := b.dialQUIC(t)
		var str *quic.Stream
		for _, bytes := range breach.uni {
			uni, err := conn.OpenUniStream()
			if err != nil {
				t.Fatal(err)
			}
			end := strings.HasPrefix(bytes, "!")
			_, _ = uni.Write([]byte(strings.TrimPrefix(bytes, "!")))
			if end {
				_ = uni.Close()
			}
		}
		if breach.uni == nil {
			var err error
			if str, err = conn.OpenStream(); err != nil {
				t.Fatal(err)
			}
			_, _ = str.Write([]byte(breach.request))
			_ = str.Close()
		}
		if code, err := breach.ends(conn, str); err != nil || code != breach.code {
			t.Errorf("%s: ended with %#x, %v; want %#x", name, code, err, breach.code)
		}
	}
	if all := b.reached(t); len(all) > 0 {
		t.Errorf("the origin got %+v", all)
	}
	if r, err := harness.Do(b.Client, harness.Request{}); err != nil || r.Status != 200 {
		t.Errorf("an honest request after all: %+v, %v", r, err)
	}
}

// ends waits for the end and returns its code.
func (b breach) ends(conn *quic.Conn, str *quic.Stream) (uint64, error) {
	if b.stream {
		_ = str.SetReadDeadline(time.Now().Add(harness.Patience))
		_, err := io.ReadAll(str)
		if reset, ok := errors.AsType[*quic.StreamError](err); ok && reset.Remote {
			return uint64(reset.ErrorCode), nil
		}
		return 0, err
	}
	return closed(conn)
}

// closed waits until the gateway closes a connection and returns the code.
func closed(conn *quic.Conn) (uint64, error) {
	select {
	case <-conn.Context().Done():
	case <-time.After(harness.Patience):
		return 0, errors.New("the connection goes on")
	}
	err := context.Cause(conn.Context())
	if end, ok := errors.AsType[*quic.ApplicationError](err); ok && end.Remote {
		return uint64(end.ErrorCode), nil
	}
	return 0, err
}

// TestNoEarlyData: a client that comes back with a session's ticket gets no request through before the handshake is done: early data can be
// sent again by anybody who saw it.
func TestNoEarlyData(t *testing.T) {
	t.Parallel()
	b := newBed(t, harness.H3, harness.AnswerOK)
	opt := b.options()
	opt.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	opt.TLS.NextProtos = []string{"h3"}
	for visit := range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
		defer cancel()
		conn, err := quic.DialAddrEarly(ctx, b.Address(), opt.TLS, &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		str, err := conn.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = str.Write([]byte(headers(request(harness.H3))))
		_ = str.Close()
		<-conn.HandshakeComplete()
		state := conn.ConnectionState()
		if state.Used0RTT {
			t.Errorf("visit %d: early data was taken", visit)
		}
		if visit > 0 && !state.TLS.DidResume {
			t.Error("the session was not resumed: there was no early data to refuse")
		}
		_, _ = io.ReadAll(str) // the ticket comes meanwhile
		_ = conn.CloseWithError(0x100, "")
	}
}

// meter is a client's socket that sends its first datagrams only, and counts what goes each way.
type meter struct {
	net.PacketConn
	left      atomic.Int64 // datagrams that still go out
	sent, got atomic.Int64 // bytes
}

func (m *meter) WriteTo(p []byte, to net.Addr) (int, error) {
	if m.left.Add(-1) < 0 {
		return len(p), nil // lost on the way, as if the client's address were forged
	}
	m.sent.Add(int64(len(p)))
	return m.PacketConn.WriteTo(p, to)
}

// SetReadBuffer leaves the buffer as it is: little comes.
func (m *meter) SetReadBuffer(int) error { return nil }

// SetWriteBuffer leaves the buffer as it is.
func (m *meter) SetWriteBuffer(int) error { return nil }

func (m *meter) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := m.PacketConn.ReadFrom(p)
	m.got.Add(int64(n))
	return n, from, err
}

// TestAmplification: an address that has proved nothing gets at most three times what it sent (RFC 9000 8.1), until the handshake's time is over.
func TestAmplification(t *testing.T) {
	t.Parallel()
	b := newBed(t, harness.H3, harness.AnswerOK, limited(func(l *downstream.Limits) { l.HandshakeTimeout = time.Second }))
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &meter{PacketConn: udp}
	m.left.Store(1)
	to, err := net.ResolveUDPAddr("udp", b.Address())
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: m}
	defer udp.Close()
	defer transport.Close()
	tlsConf := b.options().TLS
	tlsConf.NextProtos = []string{"h3"}
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond) // longer than the gateway tries
	defer cancel()
	if _, err := transport.Dial(ctx, to, tlsConf, &quic.Config{}); err == nil {
		t.Fatal("a handshake was done without the client's packets")
	}
	sent, got := m.sent.Load(), m.got.Load()
	if sent == 0 || got == 0 || got > 3*sent {
		t.Errorf("%d bytes brought %d, want some and at most three times as many", sent, got)
	}
}

// TestPathProbes: a client that probes path after path, each from another address and with a connection ID of its own, has the gateway issue and
// retire IDs; it must not lose others, and no address gets more than three times what came from it.
func TestPathProbes(t *testing.T) {
	t.Parallel()
	b := newBed(t, harness.H3, harness.AnswerOK, limited(func(l *downstream.Limits) { l.IdleTimeout = harness.Patience }))
	conn := b.dialWandering(t)
	answered := 0
	for range 30 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m := &meter{PacketConn: udp}
		m.left.Store(2)
		transport := &quic.Transport{Conn: m, ConnectionIDLength: 8}
		defer udp.Close()
		defer transport.Close() // which ends the connection
		path, err := conn.AddPath(transport)
		if err != nil {
			t.Fatal(err)
		}
		patience := 50 * time.Millisecond
		if answered == 0 {
			patience = time.Second
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if path.Probe(ctx) == nil { // it may as well go unanswered: the gateway may think that these are too many
			answered++
		}
		cancel()
		_ = path.Close()
		if sent, got := m.sent.Load(), m.got.Load(); got > 3*sent {
			t.Errorf("%d bytes brought %d", sent, got)
		}
	}
	if answered == 0 {
		t.Error("no probe was answered: there was nothing to bound")
	}
	str, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = str.Write([]byte(headers(request(harness.H3))))
	_ = str.Close()
	_ = str.SetReadDeadline(time.Now().Add(harness.Patience))
	if answer, err := io.ReadAll(str); err != nil || len(answer) == 0 {
		t.Errorf("the connection serves no more: %v", err)
	}
	if r, err := harness.Do(b.Client, harness.Request{}); err != nil || r.Status != 200 {
		t.Errorf("an honest request after all: %+v, %v", r, err)
	}
}

// dialWandering opens a connection that can change its address: it has connection IDs of its own.
func (b *bed) dialWandering(t *testing.T) *quic.Conn {
	t.Helper()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	to, err := net.ResolveUDPAddr("udp", b.Address())
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: udp, ConnectionIDLength: 8}
	tlsConf := b.options().TLS
	tlsConf.NextProtos = []string{"h3"}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	conn, err := transport.Dial(ctx, to, tlsConf, &quic.Config{MaxIdleTimeout: harness.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.CloseWithError(0x100, "")
		_ = transport.Close()
		_ = udp.Close()
	})
	return conn
}
