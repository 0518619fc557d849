package harness

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
)

// FlowListener returns a TLS, TCP or UDP listener with these routes, "test/gw/" + name. A TLS listener passes TLS on unless it is given
// certificates.
func FlowListener(p config.Protocol, name, hostname string, port uint16, routes ...*config.StreamRoute) *config.Listener {
	return &config.Listener{
		Origin: config.Origin{Kind: "Gateway", Namespace: "test", Name: "gw", Rule: name}, Gateway: "test/gw", Name: "test/gw/" + name,
		Addresses: []netip.Addr{Loopback()}, Port: port, Protocol: p, Hostname: hostname, Streams: routes,
	}
}

// Terminating has a TLS listener open TLS with these certificates.
func Terminating(l *config.Listener, certs ...*config.Certificate) *config.Listener {
	l.TLS = &config.ListenerTLS{}
	for _, c := range certs {
		l.TLS.Certificates = append(l.TLS.Certificates, c.Name)
	}
	return l
}

// FlowRoute returns a route for hostnames, which may be nil.
func FlowRoute(name string, hostnames []string, backends ...config.Backend) *config.StreamRoute {
	return &config.StreamRoute{
		Origin: config.Origin{Kind: "TLSRoute", Namespace: "test", Name: name}, Created: time.Unix(1_700_000_000, 0),
		Hostnames: hostnames, Rule: "0", Backends: backends,
	}
}

// RawOrigin is an endpoint of streams.
type RawOrigin struct {
	Addr netip.AddrPort

	ln     net.Listener
	served sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu
	count int               // connections so far; guarded by mu
}

// NewRawOrigin starts an endpoint that serves each connection, over TLS with a certificate for hosts when there are any.
func NewRawOrigin(t testing.TB, serve func(net.Conn), hosts ...string) *RawOrigin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &RawOrigin{Addr: netip.MustParseAddrPort(ln.Addr().String()), ln: ln, conns: map[net.Conn]bool{}}
	if len(hosts) > 0 {
		o.ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{keyPair(t, NewCertificate(t, "raw", hosts...))}})
	}
	o.served.Go(func() { o.accept(serve) })
	t.Cleanup(o.Close)
	return o
}

func (o *RawOrigin) accept(serve func(net.Conn)) {
	for {
		c, err := o.ln.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.conns[c] = true
		o.count++
		o.mu.Unlock()
		o.served.Go(func() {
			serve(c)
			c.Close()
			o.mu.Lock()
			delete(o.conns, c)
			o.mu.Unlock()
		})
	}
}

// Count returns how many connections there were.
func (o *RawOrigin) Count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count
}

// Close ends the endpoint with its connections.
func (o *RawOrigin) Close() {
	o.ln.Close()
	o.mu.Lock()
	for c := range o.conns {
		c.Close()
	}
	o.mu.Unlock()
	o.served.Wait()
}

// Cluster returns the endpoint's cluster.
func (o *RawOrigin) Cluster(name string) *config.Cluster {
	c := Cluster(name, UpH1, o.Addr)
	c.Protocol = config.UpstreamTCP
	return c
}

// Named greets each connection with a name and a newline, and then echoes.
func Named(name string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.WriteString(c, name+"\n"); err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}
}

// UDPOrigin answers each datagram with its name and what it got.
type UDPOrigin struct {
	Addr netip.AddrPort
	conn *net.UDPConn
	done chan struct{}
}

// NewUDPOrigin starts one.
func NewUDPOrigin(t testing.TB, name string) *UDPOrigin {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	o := &UDPOrigin{Addr: netip.MustParseAddrPort(conn.LocalAddr().String()), conn: conn, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		room := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(room)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(append([]byte(name+" "), room[:n]...), from)
		}
	}()
	t.Cleanup(o.Close)
	return o
}

// Close ends the endpoint.
func (o *UDPOrigin) Close() {
	o.conn.Close()
	<-o.done
}

// Cluster returns the endpoint's cluster.
func (o *UDPOrigin) Cluster(name string) *config.Cluster {
	c := Cluster(name, UpH1, o.Addr)
	c.Protocol = config.UpstreamUDP
	return c
}
