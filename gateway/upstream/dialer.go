package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
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

// dialer is how the endpoints of one cluster are connected to.
type dialer struct {
	cluster  string
	protocol config.UpstreamProtocol
	tls      *tls.Config // nil for plaintext
	count    func(cluster string, delta int)
}

func newDialer(c *config.Cluster, o *Options) (*dialer, error) {
	d := &dialer{cluster: c.Name, protocol: c.Protocol, count: o.OnConnections}
	if c.TLS == nil {
		return d, nil
	}
	conf, err := clientTLS(c.TLS)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	d.tls = conf
	return d, nil
}

// dial opens a counted plaintext connection.
func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext(ctx, network, addr)
	if err != nil || d.count == nil {
		return conn, err
	}
	d.count(d.cluster, 1)
	return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { d.count(d.cluster, -1) })}, nil
}

type countedConn struct {
	net.Conn
	closed func()
}

// Close closes the connection and counts it once.
func (c *countedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// CloseWrite half-closes a TCP connection, for tunnels.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// clientTLS builds the verification of an endpoint's certificate.
func clientTLS(t *config.UpstreamTLS) (*tls.Config, error) {
	conf := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CAs != "" {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(t.CAs)) {
			return nil, errors.New("the CA bundle holds no certificate; it must be PEM blocks of type CERTIFICATE")
		}
	}
	if len(t.SubjectAltNames) > 0 {
		// The chain is verified here with the names that the policy lists in place of ServerName.
		conf.InsecureSkipVerify = true
		roots, names := conf.RootCAs, t.SubjectAltNames
		conf.VerifyConnection = func(cs tls.ConnectionState) error {
			if err := verifyNames(cs, roots, names); err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
			}
			return nil
		}
	}
	return conf, nil
}

func verifyNames(cs tls.ConnectionState, roots *x509.CertPool, names []config.SubjectAltName) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the endpoint sent no certificate")
	}
	leaf := cs.PeerCertificates[0]
	chain := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		chain.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(chain); err != nil {
		return err
	}
	for _, name := range names {
		if name.Type == "URI" {
			for _, uri := range leaf.URIs {
				if uri.String() == name.Value {
					return nil
				}
			}
		} else if leaf.VerifyHostname(name.Value) == nil {
			return nil
		}
	}
	return errors.New("the endpoint's certificate carries none of the subject alternative names that the policy lists")
}
