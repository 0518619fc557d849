// Package origin is the server behind the proxies of a benchmark: it answers so cheaply that the proxy in front of it stays the bottleneck.
// In: connections. Out: bodies of the size that the path names, counts of what was uploaded, echoes of WebSocket and gRPC messages. It must
// not know which proxy or load stands on the other side.
//
// One goroutine serves one connection, with blocking reads. A head is scanned for the few fields that matter and nothing is kept of it; an
// answer is one write of bytes that were built for the request before.
package origin

import (
	"errors"
	"fmt"
	"net"
)

// Origin is a running origin on two loopback ports.
type Origin struct {
	// HTTP is the address of the HTTP/1.1 server: bodies, uploads and WebSocket.
	HTTP string
	// GRPC is the address of the gRPC server: HTTP/2 without TLS, by prior knowledge.
	GRPC string

	listeners []net.Listener
}

// Start listens on ports of the kernel's choice and serves until Close. Connections that are open then end with their peers.
func Start() (*Origin, error) {
	o := &Origin{}
	for _, server := range []struct {
		address *string
		serve   func(net.Conn) error
	}{{&o.HTTP, serveHTTP}, {&o.GRPC, serveGRPC}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			o.Close()
			return nil, fmt.Errorf("origin: %w", err)
		}
		*server.address = l.Addr().String()
		o.listeners = append(o.listeners, l)
		go accept(l, server.serve)
	}
	return o, nil
}

// Close stops listening.
func (o *Origin) Close() {
	for _, l := range o.listeners {
		_ = l.Close()
	}
}

func accept(l net.Listener, serve func(net.Conn) error) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // out of descriptors, or the client is gone already
		}
		go func() {
			defer conn.Close()
			// The client counts what went wrong; here it only ends the connection.
			_ = serve(conn)
		}()
	}
}
