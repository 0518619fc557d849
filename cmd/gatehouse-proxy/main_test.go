package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire"
	"gatehouse.dev/gatehouse/routing"
)

const (
	patience   = 30 * time.Second
	serverName = "gatehouse-controller.test"
	theGateway = "shop/web"
)

// binary is the program under test, built once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gatehouse-proxy")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gatehouse-proxy")
	if out, err := exec.Command("go", "build", "-pgo=off", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// TestLean: the proxy links nothing of Kubernetes, of the controller or of the wire's server, by whatever way.
func TestLean(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "gatehouse.dev/gatehouse/gateway/wire/client") {
		t.Fatalf("the list of dependencies is not this program's: %q", deps)
	}
	for _, dep := range deps {
		for _, banned := range []string{
			"k8s.io/", "sigs.k8s.io/", "gatehouse.dev/gatehouse/controller", "github.com/envoyproxy/go-control-plane/pkg/",
			"github.com/envoyproxy/go-control-plane/envoy/config/listener/",
		} {
			if dep == strings.TrimSuffix(banned, "/") || strings.HasPrefix(dep, banned) {
				t.Errorf("it links %s", dep)
			}
		}
		if dep == "gatehouse.dev/gatehouse/gateway/wire" {
			t.Errorf("it links %s, the controller's end", dep)
		}
	}
}

// TestOptions: settings that cannot work are refused before anything is opened.
func TestOptions(t *testing.T) {
	tests := map[string]struct {
		options options
		want    string
	}{
		"good":           {options{controller: "c:1", gateway: "a/b"}, ""},
		"no port":        {options{controller: "c", gateway: "a/b"}, "--controller"},
		"no host":        {options{controller: ":1", gateway: "a/b"}, "--controller"},
		"no namespace":   {options{controller: "c:1", gateway: "b"}, "--gateway"},
		"empty name":     {options{controller: "c:1", gateway: "a/"}, "--gateway"},
		"too many parts": {options{controller: "c:1", gateway: "a/b/c"}, "--gateway"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.options.check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err == nil && tt.options.serverName != "c" {
				t.Errorf("the server's name is %q", tt.options.serverName)
			}
		})
	}
	c := command()
	c.SetArgs([]string{"--controller", "c:1"})
	if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "gateway") {
		t.Errorf("without --gateway: %v", err)
	}
}

// TestFiles: token and CAs are those of now, and what is wrong with a file is said with its flag.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	o := &options{tokenFile: filepath.Join(dir, "token"), caFile: filepath.Join(dir, "ca"), serverName: "x"}
	if _, err := o.token(); err == nil || !strings.Contains(err.Error(), "--token-file") {
		t.Errorf("no token: %v", err)
	}
	if _, err := o.tls(); err == nil || !strings.Contains(err.Error(), "--ca-file") {
		t.Errorf("no CA: %v", err)
	}
	for _, want := range []string{"one", "two"} {
		write(t, o.tokenFile, want+"\n")
		if got, err := o.token(); got != want || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	write(t, o.tokenFile, " \n")
	write(t, o.caFile, "no PEM")
	if _, err := o.token(); err == nil {
		t.Error("an empty token is taken")
	}
	if _, err := o.tls(); err == nil {
		t.Error("a CA file without certificates is taken")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// certify makes a certificate for the controller that is its own CA.
func certify(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: serverName}, DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// controller is a wire.Server on a socket.
type controller struct {
	*wire.Server
	addr    string
	changed chan struct{}
	stop    func()
}

// startController runs one that knows one token.
func startController(t *testing.T, addr, token string, cert tls.Certificate) *controller {
	t.Helper()
	c := &controller{changed: make(chan struct{}, 1)}
	c.Server = wire.NewServer(wire.ServerOptions{
		Authorize: func(_ context.Context, got string) (string, string, error) {
			if got != token {
				return "", "", errors.New("another token")
			}
			return theGateway, "shop/web-1", nil
		},
		OnChange: func(string) {
			select {
			case c.changed <- struct{}{}:
			default:
			}
		},
	})
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.addr = listener.Addr().String()
	server := grpc.NewServer(append(wire.GRPCOptions(), grpc.Creds(credentials.NewServerTLSFromCert(&cert)))...)
	c.Register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	c.stop = sync.OnceFunc(func() {
		c.Close()
		server.Stop()
		<-done
	})
	t.Cleanup(c.stop)
	return c
}

// apply sets a configuration and waits until the proxy runs it.
func (c *controller) apply(t *testing.T, version uint64, cfg *config.Config) wire.Proxy {
	t.Helper()
	if err := c.Set(theGateway, version, cfg); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	for {
		list := c.Proxies(theGateway)
		if len(list) == 1 && (list[0].Version == version || list[0].Refused != "") {
			return list[0]
		}
		select {
		case <-c.changed:
		case <-deadline:
			t.Fatalf("version %d was not acknowledged: %+v", version, list)
		}
	}
}

// process is a running proxy.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	admin  string
	stderr bytes.Buffer
	exited chan struct{}
}

func launch(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, admin: fmt.Sprintf("127.0.0.1:%d", freePort(t)), exited: make(chan struct{})}
	p.cmd = exec.Command(path, append(args, "--admin", p.admin, "--access-log", "")...)
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() { p.stop() })
	return p
}

// stop ends the proxy and returns what it logged.
func (p *process) stop() string {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.exited
		p.t.Error("the proxy did not stop on SIGTERM")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Errorf("exit code %d\n%s", code, &p.stderr)
	}
	return p.stderr.String()
}

// until polls a condition of another process, which sends no signal.
func (p *process) until(condition func() bool) {
	p.t.Helper()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-p.exited:
			p.t.Fatalf("the proxy exited\n%s", &p.stderr)
		case <-deadline:
			p.t.Fatal("the condition did not come true")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (p *process) get(url string) (int, string) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Error(err)
	}
	return response.StatusCode, string(body)
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// serve makes a configuration: one listener whose requests for path go to an endpoint, with a secret that nobody may see.
func serve(port uint16, path string, endpoint netip.AddrPort) *config.Config {
	return &config.Config{
		Listeners: []*config.Listener{{
			Name: "shop/web/http", Gateway: theGateway, Port: port, Protocol: config.HTTP, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
			Routes: []*config.Route{{
				Origin: config.Origin{Kind: "HTTPRoute", Namespace: "shop", Name: "r"},
				Rules: []*config.Rule{{
					Name: "0", Matches: []routing.Match{{Path: path}}, Backends: []config.Backend{{Cluster: "c", Weight: 1}},
				}},
			}},
		}},
		Clusters:     []*config.Cluster{{Name: "c", Protocol: config.UpstreamHTTP1, Endpoints: []netip.AddrPort{endpoint}}},
		Certificates: []*config.Certificate{{Name: "shop/cert", Chain: "chain", Key: config.Secret("s3cr3t-key")}},
	}
}

// TestProxy takes a proxy through its life: no controller yet, a configuration, a change, a bad one, the controller gone, another controller
// with another certificate, key and token, and the end with an exchange under way.
func TestProxy(t *testing.T) {
	slow := make(chan struct{})
	reached := make(chan struct{}, 1)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("slow") {
			reached <- struct{}{}
			<-slow
		}
		_, _ = io.WriteString(w, "origin "+r.URL.Path)
	}))
	defer origin.Close()
	endpoint := netip.MustParseAddrPort(origin.Listener.Addr().String())
	dir := t.TempDir()
	tokenFile, caFile := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	port := freePort(t)
	url := fmt.Sprintf("http://127.0.0.1:%d", port)

	p := launch(t, "--controller", address, "--server-name", serverName, "--gateway", theGateway,
		"--token-file", tokenFile, "--ca-file", caFile, "--drain-time", "20s")
	ready := func() int {
		status, _ := p.get("http://" + p.admin + "/ready")
		return status
	}
	p.until(func() bool { return ready() == http.StatusServiceUnavailable }) // it runs, and waits

	cert, ca := certify(t)
	write(t, tokenFile, "token-1")
	write(t, caFile, ca)
	c := startController(t, address, "token-1", cert)
	first := serve(port, "/one", endpoint)
	if got := c.apply(t, 1, first); got.Refused != "" || len(got.Listeners) > 0 || got.Name != "shop/web-1" {
		t.Fatalf("known of the proxy: %+v\n%s", got, &p.stderr)
	}
	if status := ready(); status != http.StatusOK {
		t.Errorf("/ready answers %d after the first configuration", status)
	}
	expect := func(path string, wantStatus int, want string) {
		t.Helper()
		if status, body := p.get(url + path); status != wantStatus || want != "" && body != want {
			t.Errorf("%s: got %d %q, want %d %q", path, status, body, wantStatus, want)
		}
	}
	expect("/one/x", http.StatusOK, "origin /one/x")
	expect("/two", http.StatusNotFound, "")

	c.apply(t, 2, serve(port, "/two", endpoint))
	expect("/two", http.StatusOK, "origin /two")
	expect("/one", http.StatusNotFound, "")

	bad := serve(port, "/three", endpoint)
	bad.Clusters = nil
	if got := c.apply(t, 3, bad); got.Version != 2 || !strings.Contains(got.Refused, "there is no cluster c") {
		t.Errorf("known of the proxy: %+v", got)
	}
	expect("/two", http.StatusOK, "origin /two")
	if status, shown := p.get("http://" + p.admin + "/config"); status != http.StatusOK || strings.Contains(shown, "s3cr3t") ||
		!strings.Contains(shown, "/two") || !strings.Contains(shown, "there is no cluster c") {
		t.Errorf("/config: %d %s", status, shown)
	}

	c.stop()
	expect("/two", http.StatusOK, "origin /two") // what runs goes on
	if status := ready(); status != http.StatusOK {
		t.Errorf("/ready answers %d without the controller", status)
	}

	// Another controller: what the files say now counts.
	cert, ca = certify(t)
	write(t, caFile, ca)
	write(t, tokenFile, "token-2")
	again := startController(t, address, "token-2", cert)
	if got := again.apply(t, 1, serve(port, "/two", endpoint)); got.Refused != "" {
		t.Errorf("known of the proxy: %+v", got)
	}
	if got := again.apply(t, 2, serve(port, "/four", endpoint)); got.Refused != "" {
		t.Errorf("known of the proxy: %+v", got)
	}
	expect("/four", http.StatusOK, "origin /four")

	// The exchange under way is finished, new ones are not begun.
	answer := make(chan string, 1)
	go func() {
		_, body := p.get(url + "/four?slow")
		answer <- body
	}()
	<-reached
	stopped := make(chan string, 1)
	go func() { stopped <- p.stop() }()
	p.until(func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(slow)
	if body := <-answer; body != "origin /four" {
		t.Errorf("the exchange under way: %q", body)
	}
	if log := <-stopped; strings.Contains(log, "s3cr3t") || strings.Contains(log, "token-1") || strings.Contains(log, "token-2") {
		t.Errorf("the log shows a secret:\n%s", log)
	}
}
