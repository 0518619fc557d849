package behaviour

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"os"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/routing"
	"gatehouse.dev/gatehouse/test/harness"
)

func TestGracefulShutdown(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		reached, release := make(chan struct{}), make(chan struct{})
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				io.WriteString(w, "begun ")
				w.(http.Flusher).Flush()
				close(reached)
				<-release
			}
			io.WriteString(w, "done")
		})
		harness.MustDo(t, env.Client, harness.Request{})
		s := harness.MustOpen(t, env.Client, harness.Request{Target: "/slow"})
		harness.MustFinal(t, s, 200)
		wait(t, "the request reaching the origin", reached)

		stopped := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
			defer cancel()
			stopped <- env.Gateway.Engine.Shutdown(ctx)
		}()
		refused(t, env)
		select {
		case err := <-stopped:
			t.Fatalf("Shutdown returned %v with an exchange under way", err)
		default:
		}
		close(release)
		if body, err := io.ReadAll(s); err != nil || string(body) != "begun done" {
			t.Errorf("the exchange under way got %q, %v", body, err)
		}
		select {
		case err := <-stopped:
			if err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		case <-time.After(harness.Patience):
			t.Fatal("Shutdown did not return when all was done")
		}
	})
}

// refused waits until the listener takes no new connection.
func refused(t *testing.T, env *harness.Env) {
	t.Helper()
	deadline := time.Now().Add(harness.Patience)
	for time.Now().Before(deadline) {
		var err error
		if env.Combo.Down == harness.H3 {
			var conn *harness.H3Conn
			if conn, err = harness.DialH3(harness.ClientOptions{Address: env.Address(), Host: harness.DefaultHost, TLS: quick()}); err == nil {
				conn.Close()
			}
		} else {
			var conn net.Conn
			if conn, err = net.Dial("tcp", env.Address()); err == nil {
				conn.Close()
			}
		}
		if err != nil {
			return
		}
	}
	t.Error("new connections are still accepted during the shutdown")
}

func quick() *tls.Config { return harness.ClientTLS(harness.DefaultHost) }

func TestShutdownTellsClients(t *testing.T) {
	for _, d := range []harness.Down{harness.H2, harness.H2C} {
		t.Run(string(d), func(t *testing.T) {
			env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, teapot)
			tlsConf := harness.ClientTLS(harness.DefaultHost)
			tlsConf.NextProtos = []string{"h2"}
			conn, err := harness.DialH2(harness.ClientOptions{Address: env.Address(), TLS: tlsConf}, d == harness.H2)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go env.Gateway.Engine.Shutdown(context.Background())
			if code, err := conn.WaitGoAway(); err != nil || code != 0 {
				t.Errorf("got GOAWAY %v, %v, want NO_ERROR", code, err)
			}
		})
	}
	t.Run("h3", func(t *testing.T) {
		env := harness.New(t, harness.Combo{Down: harness.H3, Up: harness.UpH1}, teapot)
		conn, err := harness.DialH3(harness.ClientOptions{Address: env.Address(), TLS: quick()})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		wait(t, "the server's SETTINGS", conn.Settled)
		go env.Gateway.Engine.Shutdown(context.Background())
		select {
		case <-conn.GoAway:
		case <-conn.QUIC.Context().Done(): // an idle connection may be closed at once
		case <-time.After(harness.Patience):
			t.Error("got no GOAWAY")
		}
	})
	t.Run("h1", func(t *testing.T) {
		reached, release := make(chan struct{}), make(chan struct{})
		env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
			close(reached)
			<-release
		})
		s := harness.MustOpen(t, env.Client, harness.Request{})
		wait(t, "the request reaching the origin", reached)
		go env.Gateway.Engine.Shutdown(context.Background())
		refused(t, env)
		close(release)
		if r := harness.MustFinal(t, s, 200); r.Fields.Get("Connection") != "close" {
			t.Errorf("got Connection: %q, want close", r.Fields.Get("Connection"))
		}
	})
}

// What does not end by itself is cut when the drain time is over.
func TestShutdownCutsWhatHangs(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		reached := make(chan struct{})
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
			close(reached)
			<-r.Context().Done()
		})
		harness.MustOpen(t, env.Client, harness.Request{})
		wait(t, "the request reaching the origin", reached)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := env.Gateway.Engine.Shutdown(ctx); err == nil {
			t.Error("Shutdown says that all was drained")
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("Shutdown took %v with a drain time of 100ms", took)
		}
	})
}

// load sends requests from several clients until stop, and counts.
type load struct {
	sent, failed atomic.Int64
	first        atomic.Pointer[string]
	workers      sync.WaitGroup
	stop         chan struct{}
}

func startLoad(workers int, one func(worker int) error) *load {
	l := &load{stop: make(chan struct{})}
	for i := range workers {
		l.workers.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				l.sent.Add(1)
				if err := one(i); err != nil {
					l.failed.Add(1)
					text := err.Error()
					l.first.CompareAndSwap(nil, &text)
				}
			}
		})
	}
	return l
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.workers.Wait()
	if n := l.failed.Load(); n > 0 || l.sent.Load() < 50 {
		first := ""
		if p := l.first.Load(); p != nil {
			first = *p
		}
		t.Errorf("%d of %d requests failed, first: %s", n, l.sent.Load(), first)
	}
}

// variant returns a configuration that differs from the last in what n names: routes, clusters, listeners, certificates.
func variant(env *harness.Env, origin *config.Cluster, extra, n int) *config.Config {
	cluster := *origin
	route := harness.Route("route", &config.Rule{Name: "0", Backends: harness.To(&cluster)})
	more := harness.Route("more-"+fmt.Sprint(n), &config.Rule{
		Name: "0", Matches: []routing.Match{{Path: "/more/" + fmt.Sprint(n%7)}}, Backends: harness.To(&cluster),
	})
	other := harness.Cluster("other-"+fmt.Sprint(n%3), harness.UpH1, origin.Endpoints...)
	l := harness.Listener(env.Combo.Down, env.Port, route, more)
	if n%2 == 0 {
		cluster.Origin.Generation = int64(n)
		l.Routes = l.Routes[:1]
	}
	listeners := []*config.Listener{l}
	if n%5 == 0 && extra > 0 { // a socket that comes and goes
		second := harness.Listener(harness.H1, uint16(extra), more)
		second.Name = "test/gw/second"
		listeners = append(listeners, second)
	}
	return harness.Config(listeners, &cluster, other)
}

func TestConfigChangeUnderLoad(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Write(body)
		})
		clients := []harness.Client{env.NewClient(t), env.NewClient(t)}
		l := startLoad(len(clients), func(i int) error { return echoOnce(clients[i]) })
		for n := 0; n < 40 || l.sent.Load() < 60; n++ {
			env.Gateway.Apply(variant(env, env.Origin.Cluster("origin"), 0, n))
		}
		l.end(t)
	})
}

func echoOnce(c harness.Client) error {
	r, err := harness.Do(c, harness.Request{Method: "PUT", Body: []byte("hello")})
	switch {
	case err != nil:
		return err
	case r.Err != nil:
		return r.Err
	case r.Status != 200 || string(r.Body) != "hello":
		return fmt.Errorf("got %d %q", r.Status, r.Body)
	}
	return nil
}

// Connections of a listener that stays are not touched by a change.
func TestConfigChangeKeepsConnections(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		next := make(chan struct{})
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			for range next {
				io.WriteString(w, "tick")
				w.(http.Flusher).Flush()
			}
		})
		s := harness.MustOpen(t, env.Client, harness.Request{})
		harness.MustFinal(t, s, 200)
		for n := range 5 {
			env.Gateway.Apply(variant(env, env.Origin.Cluster("origin"), 0, n))
			next <- struct{}{}
			if got := harness.MustRead(t, s, 4); got != "tick" {
				t.Fatalf("got %q", got)
			}
		}
		// Even when its route and cluster are gone it runs to its end.
		env.Gateway.Apply(harness.Config([]*config.Listener{harness.Listener(d, env.Port)}))
		next <- struct{}{}
		harness.MustRead(t, s, 4)
		close(next)
		if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
			t.Errorf("got %q, %v at the end", rest, err)
		}
		if r := harness.MustDo(t, env.Client, harness.Request{}); r.Status != 404 {
			t.Errorf("a new request got %d, want 404", r.Status)
		}
	})
}

func TestCertificateReload(t *testing.T) {
	env := harness.New(t, harness.Combo{Down: harness.H1TLS, Up: harness.UpH1}, teapot)
	var serials sync.Map
	l := startLoad(3, func(int) error {
		conn, err := tls.Dial("tcp", env.Address(), harness.ClientTLS(harness.DefaultHost))
		if err != nil {
			return err
		}
		serials.Store(conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), true)
		return conn.Close()
	})
	const changes = 20
	for n := 0; n < changes || l.sent.Load() < 60; n++ {
		cert := harness.NewCertificate(t, "reloaded", harness.DefaultHost)
		listener := harness.Listener(harness.H1TLS, env.Port, env.Config.Listeners[0].Routes...)
		listener.TLS.Certificates = []string{cert.Name}
		env.Gateway.Apply(&config.Config{
			Listeners: []*config.Listener{listener}, Clusters: env.Config.Clusters, Certificates: []*config.Certificate{cert},
		})
		cs, err := handshakeState(t, env.Address(), harness.ClientTLS(harness.DefaultHost))
		if err != nil || cs.PeerCertificates[0].SerialNumber.Cmp(harness.Serial(t, cert)) != 0 {
			t.Fatalf("change %d: the new certificate is not served: %v", n, err)
		}
	}
	l.end(t)
}

// A broken configuration is refused as a whole, and the running one goes on.
func TestBrokenConfigIsRefused(t *testing.T) {
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, teapot)
	bad := harness.Config([]*config.Listener{harness.Listener(harness.H1, env.Port, harness.Route("r", &config.Rule{
		Name: "0", Backends: []config.Backend{{Cluster: "nobody", Weight: 1}},
	}))})
	if err := env.Gateway.TryApply(bad); err == nil {
		t.Error("a reference to a cluster that is not there was accepted")
	}
	if r := harness.MustDo(t, env.Client, harness.Request{}); r.Status != 418 {
		t.Errorf("after it: got %d", r.Status)
	}
}

// A port that is taken is named; the other listeners serve.
func TestPortInUse(t *testing.T) {
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, teapot)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	second := harness.Listener(harness.H1, uint16(taken.Addr().(*net.TCPAddr).Port))
	second.Name = "test/gw/taken"
	cfg := *env.Config
	cfg.Listeners = append([]*config.Listener{}, env.Config.Listeners[0], second)
	applied, err := env.Gateway.Engine.Apply(context.Background(), &cfg)
	if err != nil || applied.Listeners["test/gw/taken"] == nil || len(applied.Listeners) != 1 {
		t.Errorf("got %v, %v, want a problem with test/gw/taken", applied.Listeners, err)
	}
	if r := harness.MustDo(t, env.Client, harness.Request{}); r.Status != 418 {
		t.Errorf("the other listener: got %d", r.Status)
	}
	taken.Close()
	env.Gateway.Apply(&cfg) // the next Apply tries again
}

func TestReloadSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand reloads take seconds")
	}
	env := harness.New(t, harness.Combo{Down: harness.H2, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})
	clients := []harness.Client{env.NewClient(t), env.NewClient(t)}
	extra := int(harness.FreePort(t))
	reload := func(from, to int) {
		l := startLoad(len(clients), func(i int) error { return echoOnce(clients[i]) })
		for n := from; n < to || l.sent.Load() < 60; n++ {
			env.Gateway.Apply(variant(env, env.Origin.Cluster("origin"), extra, n))
		}
		l.end(t)
		env.Gateway.Apply(variant(env, env.Origin.Cluster("origin"), extra, 1))
	}
	reload(0, 100) // pools and buffers reach their size
	goroutines, descriptors, heap := usage(t, 0, 0)
	reload(100, 1100)
	g, d, h := usage(t, goroutines+20, descriptors+20)
	if g > goroutines+20 || d > descriptors+20 || h > heap+8<<20 {
		t.Errorf("1,000 reloads took goroutines from %d to %d, descriptors from %d to %d, heap from %d to %d KiB",
			goroutines, g, descriptors, d, heap>>10, h>>10)
	}
}

// usage counts what is in use, waiting a while for it to fall to the bounds: sockets and goroutines end in their own time.
func usage(t *testing.T, mostGoroutines, mostDescriptors int) (goroutines, descriptors int, heap uint64) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	for {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("descriptors are counted in /proc")
		}
		goroutines, descriptors = runtime.NumGoroutine(), len(fds)
		if goroutines <= mostGoroutines && descriptors <= mostDescriptors || time.Now().After(deadline) || mostGoroutines == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond) // nothing signals the end of a goroutine
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return goroutines, descriptors, m.HeapAlloc
}
