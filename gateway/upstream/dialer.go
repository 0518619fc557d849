package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// Timeouts and sizes towards endpoints. They are the same for every cluster.
const (
	// ConnectTimeout bounds dialling an endpoint, and then the TLS handshake.
	ConnectTimeout = 5 * time.Second
	// IdleTimeout is how long an unused connection is kept.
	IdleTimeout = 60 * time.Second
	// ContinueTimeout is how long a request body waits for the endpoint's 100 (Continue) when the client asked for one.
	ContinueTimeout = time.Second
	// MaxResponseHeaderBytes bounds an endpoint's response head.
	MaxResponseHeaderBytes = 256 << 10
	// MaxIdlePerEndpoint bounds the unused HTTP/1.1 connections kept to one endpoint.
	MaxIdlePerEndpoint = 512
)

// keepAlive is the period of TCP's probes on an idle connection.
const keepAlive = 30 * time.Second

// dialer is how the endpoints of one cluster are connected to.
type dialer struct {
	cluster  string
	protocol config.UpstreamProtocol
	secure   *secure // nil for plaintext
	upkeep   *upkeep
	count    func(cluster string, delta int)
}

func newDialer(c *config.Cluster, o *Options, u *upkeep, id *identity) (*dialer, error) {
	d := &dialer{cluster: c.Name, protocol: c.Protocol, upkeep: u, count: o.OnConnections}
	if c.TLS == nil {
		return d, nil
	}
	var err error
	if d.secure, err = newSecure(c.TLS, id); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return d, nil
}

// line is a TCP connection to an endpoint. Close counts it.
type line struct {
	*sock.Conn
	dialer *dialer
	closed atomic.Bool

	// For look; once is a field so that a look needs no closure.
	looking bool
	seen    [1]byte
	into    []byte
	n       int
	err     error
	once    func() bool
}

// look reads a byte without waiting, through rw, and reports whether there was none, on a connection that stands. TLS reads what it keeps
// to itself (session tickets) on the way.
func (l *line) look(rw net.Conn) (quiet bool) {
	l.looking = true
	n, err := rw.Read(l.seen[:])
	l.looking = false
	return n == 0 && err == errQuiet
}

// Read reads from the endpoint.
func (l *line) Read(p []byte) (int, error) {
	if !l.looking {
		return l.Conn.Read(p)
	}
	l.into = p
	err := l.Serve(l.once)
	l.into = nil
	switch {
	case err != nil:
		return 0, err
	case l.err == sock.ErrAgain:
		return 0, errQuiet
	}
	return l.n, l.err
}

// readOnce is Serve's step for a look.
func (l *line) readOnce() (again bool) {
	l.n, l.err = l.TryRead(l.into)
	return false
}

// errQuiet says that there is nothing to read now. It is a net.Error that passes, for which TLS does not give up the connection.
var errQuiet net.Error = quietError{}

type quietError struct{}

func (quietError) Error() string   { return sock.ErrAgain.Error() }
func (quietError) Timeout() bool   { return true }
func (quietError) Temporary() bool { return true }

// Close closes the connection. It may be called again, and from any goroutine.
func (l *line) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	if l.dialer.count != nil {
		l.dialer.count(l.dialer.cluster, -1)
	}
	return l.Conn.Close()
}

// connect opens a connection. rw is what the codec reads and writes: the line itself, or TLS over it. Where h2 is set and the cluster has
// TLS the endpoint may choose HTTP/2: alpn says what it chose, "" when it did not choose. Closing the line closes rw too, without TLS's
// farewell.
func (d *dialer) connect(life *exchange.Life, addr netip.AddrPort, h2 bool) (l *line, rw net.Conn, alpn string, _ *exchange.Fault) {
	l, fault := d.dial(life, addr)
	if fault != nil || d.secure == nil {
		return l, l, "", fault
	}
	settings := d.secure.settings()
	conf := settings.http1
	if h2 {
		conf = settings.http2
	}
	secure, fault := l.handshake(life, conf, addr)
	if fault != nil {
		_ = l.Close()
		return nil, nil, "", fault
	}
	return l, secure, secure.ConnectionState().NegotiatedProtocol, nil
}

// dial opens a counted TCP connection.
func (d *dialer) dial(life *exchange.Life, addr netip.AddrPort) (*line, *exchange.Fault) {
	dialer := net.Dialer{Timeout: ConnectTimeout, KeepAlive: keepAlive}
	conn, err := dialer.DialContext(life, "tcp", addr.String())
	if life.Over() {
		if err == nil {
			_ = conn.Close()
		}
		return nil, over(life)
	}
	if err != nil {
		return nil, exchange.NewFault(exchange.UpstreamConnect, err)
	}
	tcp, err := sock.New(conn.(*net.TCPConn), d.upkeep.watcher())
	if err != nil {
		_ = conn.Close()
		return nil, exchange.NewFault(exchange.UpstreamConnect, err)
	}
	if d.count != nil {
		d.count(d.cluster, 1)
	}
	l := &line{Conn: tcp, dialer: d}
	l.once = l.readOnce
	return l, nil
}

// handshake puts TLS over the line. The deadline is set before the life can interrupt, and taken off when it no longer can: an
// interruption is a deadline too.
func (l *line) handshake(life *exchange.Life, conf *tls.Config, addr netip.AddrPort) (*tls.Conn, *exchange.Fault) {
	if conf.ServerName == "" {
		conf = conf.Clone()
		conf.ServerName = addr.Addr().String()
	}
	secure := tls.Client(l, conf)
	err := l.SetDeadline(time.Now().Add(ConnectTimeout))
	if err == nil {
		if !life.Attach(l) {
			return nil, over(life)
		}
		err = secure.HandshakeContext(context.Background())
		if !life.Detach() {
			return nil, over(life)
		}
	}
	if err == nil {
		err = l.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, exchange.NewFault(exchange.UpstreamTLS, err)
	}
	return secure, nil
}

// over is why something failed whose life ended.
func over(life *exchange.Life) *exchange.Fault {
	if f := life.Fault(); f != nil {
		return f
	}
	return exchange.NewFault(exchange.ClientAborted, nil)
}

// isAlert reports whether the endpoint ended the connection by a TLS alert; crypto/tls has no type for those over TCP.
func isAlert(err error) bool {
	failed, ok := errors.AsType[*net.OpError](err)
	return ok && failed.Op == "remote error"
}
