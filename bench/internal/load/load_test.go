package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// server stands in for the proxy: the standard implementations of all that a load speaks.
type server struct {
	plain, tls string
	requests   atomic.Int64
	uploaded   atomic.Int64
	conns      atomic.Int64
	// fail, where set, answers in place of the server.
	fail atomic.Pointer[http.HandlerFunc]
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if fail := s.fail.Load(); fail != nil {
		(*fail)(w, r)
		return
	}
	if r.Header.Get("Upgrade") != "" {
		s.echo(w, r)
		return
	}
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return
	}
	s.uploaded.Add(n)
	var size int
	if _, err := fmt.Sscanf(r.URL.Path, "/b/%d", &size); err != nil && r.Method == http.MethodGet {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(make([]byte, size))
}

func (s *server) echo(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer ws.CloseNow()
	for {
		kind, message, err := ws.Read(r.Context())
		if err != nil || ws.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	count := func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	plain := httptest.NewUnstartedServer(s)
	plain.Config.ConnState, plain.Config.ErrorLog = count, log.New(io.Discard, "", 0)
	plain.Start()
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(s)
	secure.EnableHTTP2 = true
	secure.Config.ConnState, secure.Config.ErrorLog = count, log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	s.plain, s.tls = plain.Listener.Addr().String(), secure.Listener.Addr().String()
	return s
}

func env(t *testing.T, s *server) *Env {
	t.Helper()
	return &Env{
		Plain: s.plain, TLS: s.tls, Dir: t.TempDir(), Warm: 20 * time.Millisecond, Measure: 150 * time.Millisecond,
		Begin: func() {}, End: func() {}, Memory: func() (int64, error) { return 0, nil },
	}
}

func small() []Request { return []Request{{Path: "/b/130"}} }

func mustRun(t *testing.T, l Load, e *Env) Result {
	t.Helper()
	res, err := l.Run(t.Context(), e)
	// A busy machine may not run this process at all for as long as that.
	for try := 0; try < 2 && err != nil && strings.Contains(err.Error(), "nothing was answered"); try++ {
		e.Measure *= 6
		res, err = l.Run(t.Context(), e)
	}
	if err != nil {
		t.Fatal(err)
	}
	if res.Errors > 0 || res.Requests == 0 {
		t.Errorf("%d requests, %d errors: %s", res.Requests, res.Errors, res.FirstError)
	}
	return res
}

// TestClosed lets each generator talk to the standard implementation of its protocol.
func TestClosed(t *testing.T) {
	s := startServer(t)
	for _, p := range []Protocol{H1, H1TLS, H2, WebSocket} {
		t.Run(string(p), func(t *testing.T) {
			e := env(t, s)
			var begun, ended int64
			e.Begin, e.End = func() { begun = s.requests.Load() }, func() { ended = s.requests.Load() }
			res := mustRun(t, Closed{Protocol: p, Conns: 4, Streams: 3, Requests: small()}, e)
			if res.P50 <= 0 || res.P50 > res.P99 || res.P99 > res.P999 || res.P999 > time.Minute {
				t.Errorf("percentiles %v %v %v", res.P50, res.P99, res.P999)
			}
			if res.Seconds < 0.15 || res.Seconds > 10 {
				t.Errorf("measured for %v s", res.Seconds)
			}
			// 12 may be under way at either edge; between the edges and the calls a busy machine does more.
			if answered := ended - begun; p != WebSocket && (res.Requests > answered+12 || answered > 3*res.Requests+1000) {
				t.Errorf("%d requests counted, the server saw %d", res.Requests, answered)
			}
		})
	}
}

func TestClosedCountsBadAnswers(t *testing.T) {
	s := startServer(t)
	var n atomic.Int64
	fail := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	s.fail.Store(&fail)
	for _, p := range []Protocol{H1, H1TLS, H2} {
		e := env(t, s)
		res, err := Closed{Protocol: p, Conns: 1, Requests: small()}.Run(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		if off := res.Errors - res.Requests; res.Errors == 0 || off < -2 || off > 2 || !strings.Contains(res.FirstError, "502") {
			t.Errorf("%s: %d good, %d bad, %s", p, res.Requests, res.Errors, res.FirstError)
		}
	}
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	s.fail.Store(&down)
	if _, err := (Closed{Protocol: H1, Conns: 1, Requests: small()}).Run(t.Context(), env(t, s)); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a server that only fails gives %v", err)
	}
}

func TestTransferCountsBytes(t *testing.T) {
	s := startServer(t)
	for name, r := range map[string]Request{"down": {Path: "/b/1000000"}, "up": {Path: "/upload", Upload: 1000000}} {
		for _, p := range []Protocol{H1, H1TLS} {
			e := env(t, s)
			res := mustRun(t, Transfer{Protocol: p, Conns: 2, Requests: []Request{r}}, e)
			if whole := res.Requests * 1000000; res.Bytes < whole-2000000 || res.Bytes > whole+6000000 {
				t.Errorf("%s %s: %d bytes in %d requests of 1 MB", name, p, res.Bytes, res.Requests)
			}
		}
	}
	if s.uploaded.Load() < 1000000 {
		t.Errorf("the server saw %d bytes of uploads", s.uploaded.Load())
	}
}

func TestH3(t *testing.T) {
	s := startServer(t)
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h3 := &http3.Server{Handler: s, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{certificate(t)}})}
	served := make(chan error, 1)
	go func() { served <- h3.Serve(packets) }()
	defer func() {
		h3.Close()
		packets.Close()
		<-served
	}()
	e := env(t, s)
	e.TLS = packets.LocalAddr().String()
	res := mustRun(t, Closed{Protocol: H3, Conns: 2, Streams: 3, Requests: small()}, e)
	if res.Bytes < res.Requests*130-1000 {
		t.Errorf("%d bytes in %d requests", res.Bytes, res.Requests)
	}
	if _, err := (Closed{Protocol: H3, Conns: 1, Requests: []Request{{Path: "/none"}}}).Run(t.Context(), e); err == nil ||
		!strings.Contains(err.Error(), "404") {
		t.Errorf("a path that is not there gives %v", err)
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// bytesCodec passes messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Name() string                  { return "proto" }
func (bytesCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

func TestGRPC(t *testing.T) {
	var refuse atomic.Bool
	echo := func(_ any, stream grpc.ServerStream) error {
		if refuse.Load() {
			return status.Error(codes.Unavailable, "not now")
		}
		for {
			var message []byte
			if err := stream.RecvMsg(&message); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
		}
	}
	g := grpc.NewServer(grpc.UnknownServiceHandler(echo), grpc.ForceServerCodec(bytesCodec{}),
		grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate(t)}})))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = g.Serve(l) })
	defer served.Wait()
	defer g.Stop()
	e := env(t, &server{tls: l.Addr().String()})
	for _, p := range []Protocol{GRPCUnary, GRPCStream} {
		t.Run(string(p), func(t *testing.T) { mustRun(t, Closed{Protocol: p, Conns: 2, Streams: 3}, e) })
	}
	refuse.Store(true)
	if _, err := (Closed{Protocol: GRPCUnary, Conns: 1}).Run(t.Context(), e); err == nil || !strings.Contains(err.Error(), "grpc-status") {
		t.Errorf("a server that refuses calls gives %v", err)
	}
}

func TestHandshakes(t *testing.T) {
	s := startServer(t)
	for _, resumed := range []bool{false, true} {
		before := s.conns.Load()
		res := mustRun(t, Handshakes{Workers: 2, Resumed: resumed}, env(t, s))
		if made := s.conns.Load() - before; made < res.Requests {
			t.Errorf("%d handshakes over %d connections", res.Requests, made)
		}
	}
}

func TestHandshakesNoticeWhatIsNotResumed(t *testing.T) {
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	secure := httptest.NewUnstartedServer(handler)
	secure.TLS = &tls.Config{SessionTicketsDisabled: true}
	secure.StartTLS()
	defer secure.Close()
	e := env(t, &server{tls: secure.Listener.Addr().String()})
	if res, err := (Handshakes{Workers: 1, Resumed: true}).Run(t.Context(), e); !strings.Contains(res.FirstError, "did not resume") {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestIdle(t *testing.T) {
	s := startServer(t)
	for _, secure := range []bool{false, true} {
		e := env(t, s)
		before := s.conns.Load()
		readings := []int64{1 << 20, 1<<20 + 300*1000}
		e.Memory = func() (int64, error) {
			n := readings[0]
			readings = readings[1:]
			return n, nil
		}
		res := mustRun(t, Idle{Conns: 300, TLS: secure}, e)
		if res.PerConnection != 1000 || s.conns.Load()-before != 300+2*idleWorkers {
			t.Errorf("%v bytes each of %d connections", res.PerConnection, s.conns.Load()-before)
		}
	}
}

func TestOpenKeepsTheRate(t *testing.T) {
	s := startServer(t)
	for _, p := range []Protocol{H1, H2} {
		t.Run(string(p), func(t *testing.T) {
			e := env(t, s)
			e.Measure, e.Rate = 400*time.Millisecond, 500
			res := mustRun(t, Open{Protocol: p, Conns: 10, Streams: 2, Requests: small(), Share: 0.5}, e)
			if res.Rate != 500 || res.Requests < 195 || res.Requests > 210 {
				t.Errorf("%d requests in 0.4 s at a rate of %v", res.Requests, res.Rate)
			}
		})
	}
}

func TestOpenFindsTheRate(t *testing.T) {
	s := startServer(t)
	e := env(t, s)
	if res := mustRun(t, Open{Protocol: H1, Conns: 4, Requests: small(), Share: 0.5}, e); res.Rate < 100 || res.Rate > 1e6 {
		t.Errorf("half of saturation is %v", res.Rate)
	}
}

// TestOpenCountsWaiting stalls the server once: every request that was due meanwhile is late, not only those that were under way.
func TestOpenCountsWaiting(t *testing.T) {
	s := startServer(t)
	var n atomic.Int64
	var stall sync.WaitGroup
	stall.Add(1)
	const length = 200 * time.Millisecond
	fail := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		switch i := n.Add(1); {
		case i == 50:
			time.AfterFunc(length, stall.Done)
			stall.Wait()
		case i > 50:
			stall.Wait()
		}
	})
	s.fail.Store(&fail)
	e := env(t, s)
	e.Measure, e.Rate = time.Second, 500
	res := mustRun(t, Open{Protocol: H1, Conns: 2, Requests: small()}, e)
	// 100 of 500 were due in the 200 ms; a closed load would have seen two.
	if res.P50 > length/4 || res.P99 < length/2 {
		t.Errorf("a stall of %v for a fifth of the time: p50 %v, p99 %v", length, res.P50, res.P99)
	}
}

// TestOpenReconnects lets the server end connections, first between requests and then in place of answers.
func TestOpenReconnects(t *testing.T) {
	s := startServer(t)
	var n atomic.Int64
	between := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%10 == 0 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.Close()
			}
		}
	})
	s.fail.Store(&between)
	e := env(t, s)
	e.Rate = 200
	res := mustRun(t, Open{Protocol: H1, Conns: 2, Requests: small()}, e)
	if res.Reconnects == 0 {
		t.Error("no request was sent again")
	}
	always := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close()
		}
	})
	s.fail.Store(&always)
	if res, err := (Open{Protocol: H1, Conns: 2, Requests: small()}).Run(t.Context(), e); err == nil || res.Errors == 0 {
		t.Errorf("a server that never answers gives %+v, %v", res, err)
	}
}

func TestOpenChanges(t *testing.T) {
	s := startServer(t)
	var version atomic.Int64
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" {
			fmt.Fprint(w, version.Load())
		}
	})
	s.fail.Store(&answer)
	e := env(t, s)
	e.Change = func(v int) error {
		version.Store(int64(v))
		return nil
	}
	l := Open{Protocol: H1, Conns: 2, Requests: small(), Fixed: 300, Changes: 20 * time.Millisecond, Changed: "/version"}
	if res := mustRun(t, l, e); res.Changes < 2 || res.Applied <= 0 || int64(res.Changes) != version.Load() {
		t.Errorf("%d changes in 150 ms, one each 20 ms; the last was %d", res.Changes, version.Load())
	}
	e.Change = func(int) error { return errors.New("refused") }
	if res, err := l.Run(t.Context(), e); err != nil || res.Errors != 1 || !strings.Contains(res.FirstError, "refused") {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestCancelEndsALoad(t *testing.T) {
	s := startServer(t)
	e := env(t, s)
	e.Warm, e.Measure = time.Hour, time.Hour
	for name, l := range map[string]Load{
		"closed": Closed{Protocol: H1, Conns: 2, Requests: small()}, "handshakes": Handshakes{Workers: 2},
		"open": Open{Protocol: H1, Conns: 2, Requests: small(), Fixed: 100}, "idle": Idle{Conns: 10},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Millisecond, cancel)
		if _, err := l.Run(ctx, e); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTools runs wrk and h2load where they are installed.
func TestTools(t *testing.T) {
	s := startServer(t)
	e := env(t, s)
	e.Warm, e.Measure = 0, time.Second
	tools := map[string]struct {
		path  *string
		loads []Closed
	}{
		"wrk": {&e.Wrk, []Closed{
			{Protocol: H1, Conns: 4, Requests: small()},
			{Protocol: H1TLS, Conns: 4, Requests: []Request{{Path: "/b/1", Header: "X-Tenant: t1"}, {Path: "/b/2", Header: "X-Tenant: t2"}}},
		}},
		"h2load": {&e.H2load, []Closed{{Protocol: H2, Conns: 2, Streams: 3, Requests: small()}}},
	}
	for name, tool := range tools {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skip("not installed: ", err)
			}
			*tool.path = path
			for _, l := range tool.loads {
				before := s.requests.Load()
				res := mustRun(t, l, e)
				if res.Tool != name || res.P50 <= 0 || res.P999 < res.P99 {
					t.Errorf("%+v", res)
				}
				if seen := s.requests.Load() - before; seen < res.Requests || seen > res.Requests+20 {
					t.Errorf("%s counts %d requests, the server %d", name, res.Requests, seen)
				}
			}
		})
	}
}

func TestToolThatFails(t *testing.T) {
	e := env(t, startServer(t))
	e.Wrk = filepath.Join(t.TempDir(), "wrk")
	if _, err := (Closed{Protocol: H1, Conns: 1, Requests: small()}).Run(t.Context(), e); err == nil || !strings.Contains(err.Error(), "wrk") {
		t.Errorf("%v", err)
	}
}
