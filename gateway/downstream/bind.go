package downstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	_ "gatehouse.dev/gatehouse/gateway/internal/xconnect" // WebSocket over HTTP/2
)

// bind is one open address: a TCP socket, and with TLS a UDP socket of the same number.
type bind struct {
	Bind
	key     string
	options *Options

	tcp  net.Listener
	http *http.Server

	http3  *http3Server           // nil when not open
	altSvc atomic.Pointer[string] // what to advertise; nil without HTTP/3

	serving sync.WaitGroup // the accept loops
	tunnels tunnelSet
}

func (s *Server) open(want Bind) (*bind, error) {
	b := &bind{Bind: want, key: want.Key(), options: &s.options}
	tcp, err := net.Listen("tcp", b.listenAddress())
	if err != nil {
		return nil, fmt.Errorf("the address cannot be bound: %w", err)
	}
	b.tcp = &gatedListener{Listener: tcp, gate: b.gate()}
	b.http = b.httpServer()
	if want.TLS {
		b.tcp = newTLSListener(b.tcp, b.tlsConfig(false), s.options.Limits.HandshakeTimeout)
		err = b.openUDP()
	}
	b.serving.Go(func() {
		if err := b.http.Serve(b.tcp); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.options.Logger.Error("a socket stopped accepting", "bind", b.key, "error", err)
		}
	})
	return b, err
}

func (b *bind) listenAddress() string {
	if !b.Addr.IsValid() {
		return ":" + strconv.Itoa(int(b.Port))
	}
	return b.key
}

func (b *bind) gate() *gate { return &gate{most: int64(b.options.Limits.MaxConnections)} }

// count tells of a connection that begins or ends. Without TLS nothing says beforehand whether it will be HTTP/1.1 or HTTP/2.
func (b *bind) count(c net.Conn, state http.ConnState) {
	proto := exchange.ProtoUnknown
	if secure, ok := c.(*tls.Conn); ok {
		proto = exchange.HTTP11
		if secure.ConnectionState().NegotiatedProtocol == "h2" {
			proto = exchange.HTTP2
		}
	}
	switch state {
	case http.StateNew:
		b.options.OnConnections(b.key, proto, 1)
	case http.StateClosed, http.StateHijacked: // a tunnel counts as active, not as a connection
		b.options.OnConnections(b.key, proto, -1)
	}
}

// tlsConfig is the outer configuration: everything that matters comes from Options.TLS for each handshake.
func (b *bind) tlsConfig(quic bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return b.options.TLS(b.key, quic, hello)
		},
	}
}

func (b *bind) httpServer() *http.Server {
	limits := &b.options.Limits
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(b.TLS)
	protocols.SetUnencryptedHTTP2(!b.TLS)
	return &http.Server{
		Handler:           http.HandlerFunc(b.serveHTTP),
		MaxHeaderBytes:    limits.MaxHeaderBytes,
		ReadHeaderTimeout: limits.HeaderTimeout,
		IdleTimeout:       limits.IdleTimeout,
		Protocols:         protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          limits.MaxStreams,
			MaxReceiveBufferPerStream:     1 << 20,
			MaxReceiveBufferPerConnection: 4 << 20,
			SendPingTimeout:               30 * time.Second,
			PingTimeout:                   15 * time.Second,
			WriteByteTimeout:              limits.BodyIdleTimeout,
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			info := connInfo{remote: addrPort(c.RemoteAddr()), local: addrPort(c.LocalAddr()), tcp: c}
			if secure, ok := c.(*tls.Conn); ok {
				info.tls = tlsInfo(secure.ConnectionState())
			}
			return context.WithValue(ctx, connInfoKey{}, &info)
		},
		ConnState: b.count,
		ErrorLog:  slog.NewLogLogger(b.options.Logger.Handler(), slog.LevelDebug),
		// OPTIONS * is routed like any other request.
		DisableGeneralOptionsHandler: true,
	}
}

// closeListeners gives up the TCP address; connections go on. The UDP socket carries its connections and stays until drain.
func (b *bind) closeListeners() {
	_ = b.tcp.Close()
}

// drain waits for the exchanges under way until ctx ends, then cuts what is left.
func (b *bind) drain(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() {
		if b.http.Shutdown(ctx) != nil {
			_ = b.http.Close()
		}
	})
	if b.http3 != nil {
		both.Go(func() { b.http3.drain(ctx) })
	}
	both.Wait()
	b.tunnels.drain(ctx)
	b.serving.Wait()
}

// tunnelSet knows the connections that were taken over after a protocol switch; net/http's own bookkeeping ends there.
type tunnelSet struct {
	mu    sync.Mutex
	open  map[exchange.Stream]struct{} // guarded by mu
	empty chan struct{}                // closed when open becomes empty while draining; guarded by mu
}

func (t *tunnelSet) add(s exchange.Stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[exchange.Stream]struct{}{}
	}
	t.open[s] = struct{}{}
}

func (t *tunnelSet) remove(s exchange.Stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, s)
	if len(t.open) == 0 && t.empty != nil {
		close(t.empty)
		t.empty = nil
	}
}

func (t *tunnelSet) drain(ctx context.Context) {
	t.mu.Lock()
	if len(t.open) == 0 {
		t.mu.Unlock()
		return
	}
	empty := make(chan struct{})
	t.empty = empty
	t.mu.Unlock()
	select {
	case <-empty:
		return
	case <-ctx.Done():
	}
	t.mu.Lock()
	left := make([]exchange.Stream, 0, len(t.open))
	for s := range t.open {
		left = append(left, s)
	}
	t.mu.Unlock()
	for _, s := range left {
		_ = s.Close()
	}
	<-empty
}
