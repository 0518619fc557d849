package downstream

import (
	"context"
	"net"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

func TestWatch(t *testing.T) {
	var w watch
	now := time.Unix(100, 0)
	late := func(after, limit time.Duration) bool {
		now = now.Add(after)
		return w.overdue(now, limit)
	}
	if late(0, time.Second) || late(time.Second-1, time.Second) || !late(1, time.Second) || !late(time.Hour, time.Second) {
		t.Error("a phase is not overdue from its limit on")
	}
	w.next(3)
	if w.kind() != 3 || late(time.Hour, time.Second) {
		t.Error("a phase is overdue when it is first seen")
	}
	w.next(3) // progress
	if late(time.Second, time.Second) || late(time.Second-1, time.Second) {
		t.Error("progress does not begin the limit anew")
	}
	if late(time.Hour, 0) || late(time.Hour, -1) {
		t.Error("no limit is one")
	}
	if !w.same() {
		t.Error("the phase seen is not the current one")
	}
	if w.next(0); w.same() {
		t.Error("a new phase is one that was seen")
	}
}

func TestPeriod(t *testing.T) {
	for name, tc := range map[string]struct {
		limits Limits
		want   time.Duration
	}{
		"defaults": {Limits{}.WithDefaults(), 500 * time.Millisecond},
		"one":      {Limits{HeaderTimeout: 100 * time.Millisecond}.WithDefaults(), 25 * time.Millisecond},
		"tiny":     {Limits{IdleTimeout: time.Microsecond}.WithDefaults(), 5 * time.Millisecond},
		"none":     {Limits{HandshakeTimeout: -1, HeaderTimeout: -1, BodyIdleTimeout: -1, IdleTimeout: -1}, 500 * time.Millisecond},
	} {
		if got := tc.limits.period(); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// fakeSession notes what it was told.
type fakeSession struct{ drained, wasCut chan struct{} }

func (f *fakeSession) tick(time.Time) {}
func (f *fakeSession) drain()         { close(f.drained) }
func (f *fakeSession) cut()           { close(f.wasCut) }

// fakeClient is a client over one end of a connection.
func fakeClient(t *testing.T, b *bind) *client {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	s, err := sock.New(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = far.Close(), s.Close() })
	return &client{bind: b, sock: s, rw: s}
}

func newFakeBind(told *[]int) *bind {
	options := Options{OnConnections: func(_ string, _ exchange.Proto, delta int) { *told = append(*told, delta) }}
	b := &bind{options: &options}
	b.tcpGate = b.gate()
	return b
}

func TestClientSet(t *testing.T) {
	var told []int
	b := newFakeBind(&told)
	var clients []*client
	for range 5 {
		c := fakeClient(t, b)
		if !b.clients.add(c) {
			t.Fatal("a client was not added")
		}
		c.count(exchange.HTTP11)
		c.count(exchange.HTTP2) // counted already
		clients = append(clients, c)
	}
	clients[1].end()
	if left := b.clients.all(nil); len(left) != 4 {
		t.Fatalf("%d clients are left", len(left))
	}
	early := &fakeSession{make(chan struct{}), make(chan struct{})}
	clients[0].become(early)

	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan struct{})
	go func() {
		b.clients.drain(ctx)
		close(drained)
	}()
	<-early.drained
	late := &fakeSession{make(chan struct{}), make(chan struct{})}
	clients[2].become(late) // at the end of a handshake
	<-late.drained
	if b.clients.add(fakeClient(t, b)) {
		t.Error("a client was added to a set that drains")
	}
	clients[2].end()
	clients[3].end()
	cancel()
	<-early.wasCut
	latest := &fakeSession{make(chan struct{}), make(chan struct{})}
	clients[4].become(latest)
	<-latest.wasCut
	select {
	case <-drained:
		t.Error("drained before the last client has ended")
	default:
	}
	clients[0].end()
	clients[4].end()
	<-drained
	sum := 0
	for _, delta := range told {
		sum += delta
	}
	if len(told) != 10 || sum != 0 {
		t.Errorf("connections were counted as %v", told)
	}
}

func TestSpeaksHTTP2(t *testing.T) {
	for begin, want := range map[string]guess{
		"": maybe, "P": maybe, "PR": maybe, "PO": no, "GET": no, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r": maybe,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": yes, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore": yes, "PRI * HTTP/1.1\r\n": no, "\x16\x03": no,
	} {
		if got := speaksHTTP2([]byte(begin)); got != want {
			t.Errorf("%q: got %v, want %v", begin, got, want)
		}
	}
}
