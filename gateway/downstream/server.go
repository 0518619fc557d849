// Package downstream is the client's side: sockets, TLS and the HTTP/1.1, HTTP/2 and HTTP/3 servers that turn what clients send into
// exchanges for a Handler.
//
// A Server keeps a set of Binds open. Apply opens what is new and closes what is gone; sockets that stay, and their connections, are
// not touched. What a connection is allowed to reach is not known here: the Handler looks at each exchange with the configuration
// of that moment.
package downstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Options are the Server's settings.
type Options struct {
	Handler exchange.Handler
	// TLS chooses the TLS settings for a handshake on a bind by its ClientHello: with the ALPN names of HTTP/1.1 and HTTP/2 on TCP and
	// of HTTP/3 on QUIC. An error refuses the handshake.
	TLS    func(bind string, quic bool, hello *tls.ClientHelloInfo) (*tls.Config, error)
	Limits Limits
	// DrainTime is how long a socket that is closed waits for its exchanges.
	DrainTime time.Duration
	Logger    *slog.Logger
	// OnConnections is told of each client connection opened (+1) and closed (-1).
	OnConnections func(bind string, proto exchange.Proto, delta int)
	// OnClosed is told of a socket that was closed for good and has no connection left.
	OnClosed func(bind string)
}

// Bind is a socket to keep open.
type Bind struct {
	// Addr is the zero Addr for all interfaces.
	Addr netip.Addr
	Port uint16
	// TLS makes it serve HTTP/1.1 and HTTP/2 over TLS, and HTTP/3 on the UDP port of the same number.
	TLS bool
}

// Key names the bind; exchanges carry it in Peer.Bind.
func (b Bind) Key() string { return config.BindKey(b.Addr, b.Port) }

// Server keeps Binds open. Its methods are safe for concurrent use.
type Server struct {
	options Options

	mu       sync.Mutex
	binds    map[Bind]*bind // guarded by mu
	stopped  bool           // guarded by mu
	draining sync.WaitGroup // binds on their way out
}

// New returns a Server without sockets.
func New(o Options) *Server {
	o.Limits = o.Limits.WithDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnConnections == nil {
		o.OnConnections = func(string, exchange.Proto, int) {}
	}
	if o.OnClosed == nil {
		o.OnClosed = func(string) {}
	}
	return &Server{options: o, binds: map[Bind]*bind{}}
}

// Apply opens and closes sockets until exactly the wanted ones are open. The result says by key which could not be opened, and why;
// the next Apply tries them again. The others serve.
func (s *Server) Apply(want []Bind) map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	problems := map[string]error{}
	if s.stopped {
		return problems
	}
	keep := make(map[Bind]bool, len(want))
	for _, b := range want {
		keep[b] = true
	}
	// Closed first: an address may pass from one bind to another.
	for key, open := range s.binds {
		if !keep[key] {
			delete(s.binds, key)
			open.closeListeners()
			s.draining.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), s.options.DrainTime)
				defer cancel()
				open.drain(ctx)
				s.options.OnClosed(open.key)
			})
		}
	}
	for _, b := range want {
		if open, ok := s.binds[b]; ok {
			if err := open.retryUDP(); err != nil {
				problems[b.Key()] = err
			}
			continue
		}
		open, err := s.open(b)
		if err != nil {
			problems[b.Key()] = err
		}
		if open != nil {
			s.binds[b] = open
		}
	}
	return problems
}

// Shutdown stops accepting, asks clients to go (Connection: close, GOAWAY) and waits for the exchanges under way, until ctx ends;
// what is left then is cut. It returns ctx's error in that case.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	binds := s.binds
	s.binds = map[Bind]*bind{}
	s.mu.Unlock()

	for _, b := range binds {
		b.closeListeners()
	}
	var all sync.WaitGroup
	for _, b := range binds {
		all.Go(func() { b.drain(ctx) })
	}
	all.Wait()
	s.draining.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("drain time over with exchanges still under way; they were cut: %w", err)
	}
	return nil
}
