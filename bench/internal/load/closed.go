package load

import (
	"context"
	"fmt"
)

// Protocol is what a load speaks to the proxy.
type Protocol string

// The protocols. WebSocket runs over HTTP/1.1 without TLS, gRPC over HTTP/2 with TLS.
const (
	H1         Protocol = "h1"
	H1TLS      Protocol = "h1tls"
	H2         Protocol = "h2"
	H3         Protocol = "h3"
	GRPCUnary  Protocol = "grpc-unary"
	GRPCStream Protocol = "grpc-stream"
	WebSocket  Protocol = "websocket"
)

// Closed keeps every connection busy: the next request follows the last answer.
type Closed struct {
	Protocol Protocol
	// Conns are the connections, Streams how many requests are under way on each; 0 is 1, and HTTP/1.1 has no more.
	Conns, Streams int
	// Requests are sent in turn; HTTP/2 and HTTP/3 send the first one only.
	Requests []Request
}

// Run implements Load.
func (l Closed) Run(ctx context.Context, e *Env) (Result, error) {
	if tool := l.tool(e); tool != nil {
		return tool(ctx, e)
	}
	return l.own(ctx, e)
}

// tool returns the outside tool for this load, nil if there is none: wrk for HTTP/1.1 without uploads, h2load for HTTP/2.
func (l Closed) tool(e *Env) func(context.Context, *Env) (Result, error) {
	h1 := l.Protocol == H1 || l.Protocol == H1TLS
	if h1 && e.Wrk != "" && l.Requests[0].Upload == 0 {
		return l.wrk
	}
	if l.Protocol == H2 && e.H2load != "" {
		return l.h2load
	}
	return nil
}

// own sends with the generators of this package.
func (l Closed) own(ctx context.Context, e *Env) (Result, error) {
	r, path, streams := newRun(), "/bench.Echo/Call", max(l.Streams, 1)
	if len(l.Requests) > 0 {
		path = l.Requests[0].Path
	}
	var work func(i int, t *tally)
	switch l.Protocol {
	case H1:
		work = func(i int, t *tally) { h1Worker(t, i, e.Plain, "", l.Requests) }
	case H1TLS:
		work = func(i int, t *tally) { h1Worker(t, i, e.TLS, "http/1.1", l.Requests) }
	case H2:
		work = func(_ int, t *tally) { h2Worker(t, e.TLS, h2Get, path, streams) }
	case GRPCUnary:
		work = func(_ int, t *tally) { h2Worker(t, e.TLS, grpcUnary, path, streams) }
	case GRPCStream:
		work = func(_ int, t *tally) { h2Worker(t, e.TLS, grpcStream, path, streams) }
	case WebSocket:
		work = func(_ int, t *tally) { wsWorker(t, e.Plain, 130) }
	case H3:
		return h3Load(ctx, e, l.Conns, streams, path)
	default:
		return Result{}, fmt.Errorf("no load for the protocol %q", l.Protocol)
	}
	return r.workers(ctx, e, l.Conns, work)
}

// Transfer is Closed for large bodies: its requests are sent by the generator of this package, which reads and writes in large steps and
// counts bytes as they pass, not when a body is whole.
type Transfer Closed

// Run implements Load.
func (l Transfer) Run(ctx context.Context, e *Env) (Result, error) { return Closed(l).own(ctx, e) }
