package harness

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"gatehouse.dev/gatehouse/gateway/config"
)

// Hosts that the tests use by default.
const (
	DefaultHost = "app.example.test"
	OriginHost  = "origin.example.test"
)

// Origin is a scriptable server that speaks one upstream protocol.
type Origin struct {
	Up   Up
	Addr netip.AddrPort
	// Opened counts the connections accepted so far.
	Opened atomic.Int64

	server *http.Server
}

// NewOrigin starts an origin with this handler; it stops when the test ends.
func NewOrigin(t testing.TB, up Up, handler http.HandlerFunc) *Origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &Origin{Up: up, Addr: netip.MustParseAddrPort(ln.Addr().String())}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(up == UpH1)
	protocols.SetHTTP2(up == UpH2TLS)
	protocols.SetUnencryptedHTTP2(up == UpH2C)
	o.server = &http.Server{
		Handler: handler, Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0), DisableGeneralOptionsHandler: true,
		MaxHeaderBytes: 4 << 20,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				o.Opened.Add(1)
			}
		},
	}
	var served sync.WaitGroup
	served.Go(func() {
		if up == UpH2TLS {
			o.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{keyPair(panicTB{}, sharedCertificate())}}
			_ = o.server.ServeTLS(ln, "", "")
			return
		}
		_ = o.server.Serve(ln)
	})
	t.Cleanup(func() {
		o.server.Close()
		served.Wait()
	})
	return o
}

// CloseIdle closes the origin's idle connections at once, as a server whose keep-alive time is over does.
func (o *Origin) CloseIdle() {
	o.server.SetKeepAlivesEnabled(false) // closes what is idle
	o.server.SetKeepAlivesEnabled(true)
}

// Cluster returns a cluster named name of these addresses, spoken to as up says.
func Cluster(name string, up Up, endpoints ...netip.AddrPort) *config.Cluster {
	c := &config.Cluster{
		Origin: config.Origin{Kind: "Service", Namespace: "test", Name: name}, Name: "Service/test/" + name + "/80", Endpoints: endpoints,
	}
	switch up {
	case UpH1:
		c.Protocol = config.UpstreamHTTP1
	case UpH2C:
		c.Protocol = config.UpstreamH2C
	case UpH2TLS:
		c.Protocol = config.UpstreamHTTP2
		c.TLS = &config.UpstreamTLS{ServerName: OriginHost, CAs: CAPEM()}
	}
	return c
}

// Cluster returns a cluster of this origin alone.
func (o *Origin) Cluster(name string) *config.Cluster { return Cluster(name, o.Up, o.Addr) }

// ClosedAddress returns an address where nobody listens.
func ClosedAddress(t testing.TB) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return netip.MustParseAddrPort(ln.Addr().String())
}
