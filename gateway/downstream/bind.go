package downstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h1"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// bind is one open address: a TCP socket, and with HTTP/3 a UDP socket of the same number.
type bind struct {
	Bind    // as it was opened
	key     string
	options *Options
	// passthrough is the Bind's, as it is now.
	passthrough atomic.Bool

	tcp     *net.TCPListener
	tcpGate *gate
	closed  chan struct{} // closed with the listener
	clients members[*client]
	watcher *sock.Watcher // tells of clients that hang up
	tlsConf *tls.Config   // nil without TLS
	spares  sync.Pool     // *h1Work
	clock   h1.Clock

	http3  *http3Server           // nil when not open; guarded by Server.mu until the bind is drained
	altSvc atomic.Pointer[string] // what to advertise; nil without HTTP/3
	// leaving cuts the HTTP/3 servers that are on their way out; guarded as http3 is.
	leaving []context.CancelFunc

	workers workers // of HTTP/2 and HTTP/3

	serving sync.WaitGroup // the accept loops and the ticker
	over    chan struct{}  // closed when all connections are gone: ends the ticker
}

func openBind(want Bind, o *Options) (*bind, error) {
	b := &bind{Bind: want, key: want.Key(), options: o, closed: make(chan struct{}), over: make(chan struct{})}
	b.passthrough.Store(want.Passthrough)
	b.tcpGate = b.gate()
	b.spares.New = func() any {
		return newH1Work(h1.Limits{Bytes: o.Limits.MaxHeaderBytes, Fields: o.Limits.MaxHeaderCount})
	}
	var err error
	if b.watcher, err = sock.NewWatcher(); err != nil {
		return nil, fmt.Errorf("the address cannot be served: %w", err)
	}
	// Idle clients are ended by the limits and tunnels look after themselves: keep-alive probes on all connections would only cost.
	config := net.ListenConfig{KeepAlive: -1}
	tcp, err := config.Listen(context.Background(), "tcp", b.listenAddress())
	if err != nil {
		_ = b.watcher.Close()
		return nil, fmt.Errorf("the address cannot be bound: %w", err)
	}
	b.tcp, _ = tcp.(*net.TCPListener)
	if want.Kind == KindTLS {
		b.tlsConf = b.tlsConfig(false)
	}
	if want.HTTP3 {
		err = b.openUDP()
	}
	b.serving.Go(b.accept)
	b.serving.Go(b.tick)
	return b, err
}

// update is called with Server.mu held.
func (b *bind) update(want Bind) error {
	b.passthrough.Store(want.Passthrough)
	switch {
	case want.HTTP3 && b.http3 == nil:
		return b.openUDP()
	case !want.HTTP3 && b.http3 != nil:
		b.closeUDP()
	}
	return nil
}

// listenAddress is as package net takes it.
func (b Bind) listenAddress() string {
	if !b.Addr.IsValid() {
		return ":" + strconv.Itoa(int(b.Port))
	}
	return netip.AddrPortFrom(b.Addr, b.Port).String()
}

func (b *bind) gate() *gate { return &gate{most: int64(b.options.Limits.MaxConnections)} }

// tlsConfig is the outer configuration: everything that matters comes from Options.TLS for each handshake.
func (b *bind) tlsConfig(quic bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			decided, err := b.options.TLS(b.key, quic, hello)
			if w, ok := hello.Conn.(*wire); ok {
				if err != nil {
					w.opening.mute = true // crypto/tls would blame an internal error
					return nil, err
				}
				return w.decide(decided, hello.ServerName)
			}
			if err == nil && (decided.Config == nil || decided.Stream) {
				err = errNoStream
			}
			return decided.Config, err
		},
	}
}

// tick has every connection look at its limits, again and again. One ticker for all costs less than a timer for each wait.
func (b *bind) tick() {
	ticker := time.NewTicker(b.options.Limits.period())
	defer ticker.Stop()
	var clients []*client
	for {
		select {
		case <-b.over:
			b.workers.close()
			return
		case <-ticker.C:
			now := time.Now() // the tick may have waited, and a limit must not fire early
			b.workers.tick()
			clients = b.clients.all(clients[:0])
			for i, c := range clients {
				c.tick(now)
				clients[i] = nil
			}
		}
	}
}

// errNoStream ends a handshake over QUIC that would lead to a Stream.
var errNoStream = errors.New("only HTTP/3 is served over QUIC")

// closeListeners gives up the TCP address; connections go on, but for those whose handshake is not done. The UDP socket carries its
// connections and stays until drain.
func (b *bind) closeListeners() {
	close(b.closed)
	_ = b.tcp.Close()
}

// drain waits for the exchanges under way until ctx ends, then cuts what is left.
func (b *bind) drain(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { b.clients.drain(ctx) })
	if b.http3 != nil {
		both.Go(func() { b.http3.drain(ctx) })
	}
	both.Wait()
	stop := context.AfterFunc(ctx, b.endLeaving)
	defer stop()
	close(b.over)
	b.serving.Wait()
	_ = b.watcher.Close()
}
