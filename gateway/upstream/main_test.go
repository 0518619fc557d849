package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// xconnect makes the endpoints, which stand on net/http, take extended CONNECT (RFC 8441); it is read once, when the process starts.
const xconnect = "http2xconnect=1"

// TestMain fails the package when goroutines are left after its tests.
func TestMain(m *testing.M) {
	if debug := os.Getenv("GODEBUG"); !strings.Contains(debug, xconnect) {
		if self, err := os.Executable(); err == nil {
			os.Setenv("GODEBUG", strings.TrimPrefix(debug+","+xconnect, ","))
			_ = syscall.Exec(self, os.Args, os.Environ()) // returns only when it failed: the tests then tell
		}
	}
	code := m.Run()
	deadline := time.Now().Add(5 * time.Second)
	for code == 0 {
		left := goroutines()
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "%d goroutines are left after the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
		time.Sleep(10 * time.Millisecond) // nothing signals the end of a goroutine
	}
	os.Exit(code)
}

// goroutines returns the stacks of all but the caller and those of package testing.
func goroutines() (left []string) {
	buf := make([]byte, 8<<20)
	for i, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if i > 0 && !strings.Contains(stack, "testing.") && !strings.Contains(stack, "os/signal.") {
			left = append(left, stack)
		}
	}
	return left
}

// patience bounds every wait for something that must happen.
const patience = 10 * time.Second

// receive waits for a value of a channel.
func receive[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: it did not happen", what)
	}
	return v
}

// origin is an endpoint.
type origin struct {
	*httptest.Server
	addr     netip.AddrPort
	opened   atomic.Int64
	closed   chan struct{} // one for each connection closed
	requests atomic.Int64
}

type originOptions struct {
	protocols func(*http.Protocols)
	tls       *tls.Config
	// h2 serves the connections that choose HTTP/2, in place of net/http.
	h2 func(net.Conn)
}

func newOrigin(t *testing.T, o originOptions, handler http.HandlerFunc) *origin {
	t.Helper()
	out := &origin{closed: make(chan struct{}, 1000)}
	out.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out.requests.Add(1)
		handler(w, r)
	}))
	out.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			out.opened.Add(1)
		case http.StateClosed, http.StateHijacked:
			out.closed <- struct{}{}
		}
	}
	out.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes are what some tests are about
	if o.protocols != nil {
		out.Config.Protocols = new(http.Protocols)
		o.protocols(out.Config.Protocols)
		out.EnableHTTP2 = out.Config.Protocols.HTTP2()
	}
	if o.h2 != nil {
		o.tls.NextProtos = []string{"h2", "http/1.1"}
		out.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
			"h2": func(_ *http.Server, c *tls.Conn, _ http.Handler) { o.h2(c) },
		}
	}
	if o.tls != nil {
		out.TLS = o.tls
		out.StartTLS()
	} else {
		out.Start()
	}
	t.Cleanup(out.Close)
	out.addr = netip.MustParseAddrPort(out.Listener.Addr().String())
	return out
}

func h1Only(p *http.Protocols) { p.SetHTTP1(true) }
func h2c(p *http.Protocols)    { p.SetUnencryptedHTTP2(true) }
func h1AndH2(p *http.Protocols) {
	p.SetHTTP1(true)
	p.SetHTTP2(true)
}

// scripted is an endpoint below HTTP: script gets each connection.
func scripted(t *testing.T, script func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			script(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

// single makes one cluster live until the test ends.
func single(t *testing.T, c *config.Cluster) *Cluster {
	t.Helper()
	lease, problems := newManager(t, Options{}).Apply([]*config.Cluster{c})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	t.Cleanup(lease.Release)
	return lease.Cluster(c.Name)
}

// newManager makes a Manager that ends with the test.
func newManager(t *testing.T, o Options) *Manager {
	m := NewManager(o)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// endpointAt makes a cluster of one HTTP/1.1 endpoint live until the test ends, and returns that.
func endpointAt(tb testing.TB, addr string) *Endpoint {
	m := NewManager(Options{})
	lease, _ := m.Apply([]*config.Cluster{cluster(netip.MustParseAddrPort(addr))})
	tb.Cleanup(func() {
		lease.Release()
		_ = m.Close()
	})
	return lease.Cluster("c").set.Load().list[0]
}

func cluster(addrs ...netip.AddrPort) *config.Cluster {
	return &config.Cluster{Name: "c", Protocol: config.UpstreamHTTP1, Endpoints: addrs}
}

func request(t *testing.T, method, target string, fields ...string) *exchange.Head {
	t.Helper()
	h := &exchange.Head{Method: method, Scheme: "http", Authority: "www.example.com", Target: target}
	for i := 0; i < len(fields); i += 2 {
		h.Fields.Add(fields[i], fields[i+1])
	}
	if err := h.Normalize(); err != nil {
		t.Fatal(err)
	}
	return h
}

// Answer is what an attempt brought. Closing Body or Tunnel ends the attempt.
type Answer struct {
	Response exchange.Response
	Body     exchange.Body
	Tunnel   exchange.Stream
}

type endingBody struct {
	exchange.Body
	end func()
}

func (b endingBody) Close() error {
	err := b.Body.Close()
	b.end()
	return err
}

type endingStream struct {
	exchange.Stream
	end func()
}

func (s endingStream) Close() error {
	err := s.Stream.Close()
	s.end()
	return err
}

// roundTrip makes one attempt that ends with ctx at the latest.
func roundTrip(ctx context.Context, e *Endpoint, a *Attempt) (*Answer, *exchange.Fault) {
	a.Life = a.Life.Fresh()
	stop := context.AfterFunc(ctx, func() { a.Life.End(exchange.AsFault(context.Cause(ctx), exchange.ClientAborted)) })
	end := func() {
		a.End()
		stop()
	}
	if fault := e.RoundTrip(a); fault != nil {
		end()
		return nil, fault
	}
	answer := &Answer{Response: a.Response, Body: endingBody{a.Answer, end}}
	if a.Tunnel != nil {
		answer.Tunnel = endingStream{a.Tunnel, end}
	}
	return answer, nil
}

// send picks an endpoint and makes one attempt.
func send(ctx context.Context, c *Cluster, a *Attempt) (*Answer, *exchange.Fault) {
	e, fault := c.Pick(ctx, nil)
	if fault != nil {
		return nil, fault
	}
	defer e.Done()
	return roundTrip(ctx, e, a)
}

// get makes one whole exchange and returns the body.
func get(t *testing.T, c *Cluster) string {
	t.Helper()
	answer, fault := send(t.Context(), c, &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody})
	if fault != nil {
		t.Fatal(fault)
	}
	return drain(t, answer)
}

func drain(t *testing.T, a *Answer) string {
	t.Helper()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// informed calls itself for interim responses.
type informed func(status int, fields exchange.Fields)

func (f informed) Inform(status int, fields exchange.Fields) { f(status, fields) }

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }
