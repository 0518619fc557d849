// Package downstream is the client's side: sockets, TLS and the HTTP/1.1, HTTP/2 and HTTP/3 servers that turn what clients send into
// exchanges for a Handler. Connections that are not HTTP, with or without TLS, become Streams for a StreamHandler, and the datagrams of
// a client a Session.
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
	// Streams gets what is not HTTP. It may be nil where no Bind and no Handshake leads to any.
	Streams StreamHandler
	// TLS decides by its ClientHello what becomes of a handshake on a bind. An error refuses it.
	TLS    func(bind string, quic bool, hello *tls.ClientHelloInfo) (Handshake, error)
	Limits Limits
	// DrainTime is how long a socket that is closed waits for its exchanges.
	DrainTime time.Duration
	Logger    *slog.Logger
	// OnConnections is told of each client connection opened (+1) and closed (-1).
	OnConnections func(bind string, proto exchange.Proto, delta int)
	// OnClosed is told of a socket that was closed for good and has no connection left.
	OnClosed func(bind string)
}

// Handshake is what becomes of a TLS connection.
type Handshake struct {
	// Config has the ALPN names of HTTP/1.1 and HTTP/2 on TCP and of HTTP/3 on QUIC, and none for a Stream. With a nil Config the gateway
	// does not open the TLS: it becomes a Stream that begins with the ClientHello.
	Config *tls.Config
	// Stream makes a Stream of what is within the TLS, in place of HTTP.
	Stream bool
}

// Kind is what a socket speaks.
type Kind uint8

// The kinds of Bind.
const (
	KindHTTP Kind = iota // HTTP/1.1 and HTTP/2 in plaintext
	KindTLS              // what Options.TLS decides for each connection
	KindTCP              // Streams
	KindUDP              // Sessions
)

// Bind is a socket to keep open. A change of its Kind makes another socket of it; other changes leave the socket and its connections alone.
type Bind struct {
	// Addr is the zero Addr for all interfaces.
	Addr netip.Addr
	Port uint16
	Kind Kind
	// Passthrough says that Options.TLS may leave TLS unopened. Where it does not, no ClientHello is kept for that.
	Passthrough bool
	// HTTP3 makes a KindTLS serve HTTP/3 on the UDP port of the same number.
	HTTP3 bool
}

// Key names the bind; exchanges carry it in Peer.Bind.
func (b Bind) Key() string {
	if b.Kind == KindUDP {
		return config.UDPKey(b.Addr, b.Port)
	}
	return config.BindKey(b.Addr, b.Port)
}

// place is what two Binds of one socket have in common.
func (b Bind) place() Bind { return Bind{Addr: b.Addr, Port: b.Port, Kind: b.Kind} }

// socket is an open Bind.
type socket interface {
	// update makes it serve another Bind of the same place. It tries again what failed before.
	update(Bind) error
	// closeListeners lets no more clients in.
	closeListeners()
	// drain waits for what clients have under way until ctx ends, cuts what is left, and closes everything.
	drain(ctx context.Context)
}

// Server keeps Binds open. Its methods are safe for concurrent use.
type Server struct {
	options Options

	mu       sync.Mutex
	binds    map[Bind]socket // by place; guarded by mu
	stopped  bool            // guarded by mu
	draining sync.WaitGroup  // binds on their way out
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
	return &Server{options: o, binds: map[Bind]socket{}}
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
		keep[b.place()] = true
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
				s.closed(key)
			})
		}
	}
	for _, b := range want {
		if open, ok := s.binds[b.place()]; ok {
			if err := open.update(b); err != nil {
				problems[b.Key()] = err
			}
			continue
		}
		if err := s.open(b); err != nil {
			problems[b.Key()] = err
		}
	}
	return problems
}

// closed tells of a socket that is closed for good, unless another of the same name, but of another kind, has taken its place.
func (s *Server) closed(place Bind) {
	s.mu.Lock()
	again := false
	for open := range s.binds {
		again = again || open.Key() == place.Key()
	}
	s.mu.Unlock()
	if !again {
		s.options.OnClosed(place.Key())
	}
}

// open opens a socket. It may serve in part even with an error. It is called with mu held.
func (s *Server) open(want Bind) error {
	if want.Kind == KindUDP {
		opened, err := openSessions(want, &s.options)
		if err == nil {
			s.binds[want.place()] = opened
		}
		return err
	}
	opened, err := openBind(want, &s.options)
	if opened != nil {
		s.binds[want.place()] = opened
	}
	return err
}

// Shutdown stops accepting, asks clients to go (Connection: close, GOAWAY) and waits for the exchanges under way, until ctx ends;
// what is left then is cut. It returns ctx's error in that case.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	binds := s.binds
	s.binds = map[Bind]socket{}
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
