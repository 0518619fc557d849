// Package admin is the listener for operators: readiness, metrics, the running configuration and profiles. It is not for clients; by
// default it listens on loopback only. Where it listens elsewhere too, for probes and a metrics server, the running configuration and the
// profiles are still for this machine alone: who may reach a Pod's network need not be an operator, and who may forward a port is.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"
)

// Options are what the listener shows.
type Options struct {
	// Ready says why the gateway does not serve, or nil.
	Ready func() error
	// Metrics serves /metrics.
	Metrics http.Handler
	// Config returns what /config shows as JSON. Secrets in it must be unprintable by type.
	Config func() any
}

// Server is a running admin listener.
type Server struct {
	http     *http.Server
	listener net.Listener
	done     chan struct{}
}

// Listen opens the admin listener on "HOST:PORT" and serves it until Close.
func Listen(address string, o Options) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("the admin address cannot be bound; choose another with --admin HOST:PORT, or \"\" for none: %w", err)
	}
	s := &Server{
		http:     &http.Server{Handler: handler(o), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute},
		listener: listener,
		done:     make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(listener) // ends with Close
	}()
	return s, nil
}

// Addr returns the address bound.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close stops the listener.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}

func handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if err := o.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", o.Metrics)
	local := func(pattern string, f http.HandlerFunc) { mux.HandleFunc(pattern, localOnly(f)) }
	local("GET /config", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(o.Config()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	local("/debug/pprof/", pprof.Index)
	local("/debug/pprof/cmdline", pprof.Cmdline)
	local("/debug/pprof/profile", pprof.Profile)
	local("/debug/pprof/symbol", pprof.Symbol)
	local("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "gatehouse admin\n\n/ready\n/metrics\n/config\n/debug/pprof/\n")
	})
	return mux
}

// localOnly answers clients on this machine, `kubectl port-forward` among them, and refuses others. A browser on this machine that was led here
// by a name of somebody else's (DNS rebinding) is refused too.
func localOnly(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.RemoteAddr) || !loopback(r.Host) {
			http.Error(w, "only for this machine: use http://127.0.0.1:PORT on it, or kubectl port-forward", http.StatusForbidden)
			return
		}
		f(w, r)
	}
}

// loopback reports whether HOST or HOST:PORT is this machine.
func loopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = strings.Trim(hostPort, "[]")
	}
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
