package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// The names of the services: those of the Services in deploy/examples/bookinfo.
const (
	productpageName = "productpage"
	detailsName     = "details"
	ratingsName     = "ratings"
	reviewsV1Name   = "reviews-v1"
	reviewsV2Name   = "reviews-v2"
	reviewsV3Name   = "reviews-v3"
	auditName       = "audit"
)

// serviceNames lists the services in the order of their ports.
func serviceNames() []string {
	return []string{productpageName, detailsName, ratingsName, reviewsV1Name, reviewsV2Name, reviewsV3Name, auditName}
}

// basePort is the port of the first service; each further one has the next. EndpointSlices name them, so they are fixed.
const basePort = 19080

// settings is where the services listen and by which way the page calls reviews.
type settings struct {
	// ports by service; 0 lets the kernel choose.
	ports map[string]int
	// gateway is the base URL of the gateway's plain HTTP listener.
	gateway string
	// reviewsHost is the Host of the page's calls to reviews, by which the gateway chooses the route.
	reviewsHost string
}

func defaultSettings() *settings {
	s := &settings{ports: map[string]int{}, gateway: "http://127.0.0.1:8080", reviewsHost: "reviews.bookinfo.example.com"}
	for i, name := range serviceNames() {
		s.ports[name] = basePort + i
	}
	return s
}

// bookinfo is the running services.
type bookinfo struct {
	listeners map[string]net.Listener
	servers   []server
	page      *productpage
	// failed gets the error of a server that ended by itself.
	failed chan error
}

// server is the server of one service.
type server struct {
	*http.Server
	name string
	// client is what the service calls others with, nil when it calls none.
	client *http.Client
}

// start opens every port and then serves: when one port is taken, nothing runs.
func start(s *settings) (*bookinfo, error) {
	names := serviceNames()
	b := &bookinfo{listeners: map[string]net.Listener{}, failed: make(chan error, len(names))}
	for _, name := range names {
		if err := b.listen(name, s.ports[name]); err != nil {
			b.closeListeners()
			return nil, err
		}
	}
	page, err := newProductpage("http://"+b.addr(detailsName), s.gateway, s.reviewsHost)
	if err != nil {
		b.closeListeners()
		return nil, err
	}
	b.page = page
	ratings := "http://" + b.addr(ratingsName)
	// Who calls stands before who is called; see shutdown.
	b.serve(productpageName, page.handler(), page.client)
	for name, r := range map[string]*reviews{
		reviewsV1Name: newReviews("v1", "", ratings), reviewsV2Name: newReviews("v2", "black", ratings), reviewsV3Name: newReviews("v3", "red", ratings),
	} {
		b.serve(name, r.handler(), r.client)
	}
	b.serve(detailsName, detailsHandler(), nil)
	b.serve(ratingsName, ratingsHandler(), nil)
	b.serve(auditName, new(audit).handler(), nil)
	return b, nil
}

func (b *bookinfo) listen(name string, port int) error {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("service %s: %s is taken, perhaps by another bookinfo: stop the program that listens there and try again", name, addr)
	}
	if err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	b.listeners[name] = l
	return nil
}

func (b *bookinfo) closeListeners() {
	for _, l := range b.listeners {
		_ = l.Close()
	}
}

func (b *bookinfo) serve(name string, handler http.Handler, client *http.Client) {
	srv := &http.Server{Handler: identify(name, handler), ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	// HTTP/2 without TLS as well, for routes whose Service says appProtocol: kubernetes.io/h2c.
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	b.servers = append(b.servers, server{srv, name, client})
	l := b.listeners[name]
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			b.failed <- fmt.Errorf("service %s: %w", name, err)
		}
	}()
}

// addr returns "127.0.0.1:PORT" of a service.
func (b *bookinfo) addr(name string) string { return b.listeners[name].Addr().String() }

// shutdown stops every server, the page's event streams first: they never end by themselves. Then who calls stops before who is called,
// and closes its connections: one that was dialled and never used would hold up the other end for seconds, as a request about to come.
func (b *bookinfo) shutdown(ctx context.Context) error {
	b.page.close()
	var errs []error
	for _, srv := range b.servers {
		if err := srv.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("service %s: requests still in progress were cut off: %w", srv.name, err), srv.Close())
		}
		if srv.client != nil {
			srv.client.CloseIdleConnections()
		}
	}
	return errors.Join(errs...)
}

// identify adds what all services have: /health, and a header that says who answered.
func identify(name string, next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"service": name, "status": "healthy"})
	})
	mux.Handle("/", next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Bookinfo-Service", name)
		w.Header().Set("X-Powered-By", "bookinfo")
		mux.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // fails only when the client is gone
}

func writeError(w http.ResponseWriter, status int, format string, args ...any) {
	writeJSON(w, status, map[string]string{"error": fmt.Sprintf(format, args...)})
}
