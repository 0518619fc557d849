package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

// TestMutualTLS has a server and a client that the authority named speak to each other.
func TestMutualTLS(t *testing.T) {
	a, err := NewAuthority(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := a.Issue("server", Identity{Name: "server", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(a.CertificateFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	users := make(chan *x509.Certificate, 1)
	go func() {
		defer close(users)
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if server, ok := c.(*tls.Conn); ok && server.Handshake() == nil {
			users <- server.ConnectionState().PeerCertificates[0]
		}
	}()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := a.Kubeconfig(path, "https://"+listener.Addr().String(), Identity{Name: "jane", Groups: []string{"admins"}}); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	client, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(config.CAData)
	raw, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{ServerName: "127.0.0.1", RootCAs: trusted, Certificates: []tls.Certificate{client}})
	defer c.Close()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	user := <-users
	if user == nil || user.Subject.CommonName != "jane" || len(user.Subject.Organization) != 1 || user.Subject.Organization[0] != "admins" {
		t.Errorf("the server sees %+v", user)
	}
}
