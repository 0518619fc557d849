// Package admin is the listener for operators: readiness, metrics, the running configuration and profiles. It is not for clients; by
// default it listens on loopback only.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
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
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(o.Config()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "gatehouse admin\n\n/ready\n/metrics\n/config\n/debug/pprof/\n")
	})
	return mux
}
