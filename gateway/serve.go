package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/buffer"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/snapshot"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

// statusNotModified answers a conditional request without the content (RFC 9110 15.4.5).
const statusNotModified = 304

// run is one exchange on its way. It belongs to the goroutine that serves the exchange and is used again for later ones.
type run struct {
	engine   *Engine
	snapshot *snapshot.Snapshot
	x        *exchange.Exchange
	w        exchange.Responder
	handles  *telemetry.Handles
	span     telemetry.Span

	listener *snapshot.Listener
	rule     *snapshot.Rule
	backend  *snapshot.Backend
	// How many filters of each chain took part: their response side runs.
	listenerRan, ruleRan, backendRan int
	sticky                           sticky

	body    requestBody // its source is nil until the request is ready to be sent
	timer   *time.Timer // of the request timeout
	started bool        // the final response head is out

	attempt upstream.Attempt
	tried   []*upstream.Endpoint
	// What the last attempt holds until endAttempt.
	endpoint     *upstream.Endpoint
	attemptTimer *time.Timer
}

// reset makes the run ready for another exchange and lets go of this one's.
func (r *run) reset() {
	r.attempt.Response = exchange.Response{} // after a failed attempt its memory is still the exchange's; see try
	r.attempt.Reset()
	clear(r.tried)
	r.tried = r.tried[:0]
	r.snapshot, r.x, r.w, r.handles, r.span = nil, nil, nil, nil, telemetry.Span{}
	r.listener, r.rule, r.backend = nil, nil, nil
	r.listenerRan, r.ruleRan, r.backendRan = 0, 0, 0
	r.sticky = sticky{}
	r.body.reset()
	r.started = false
}

// serveSafely keeps a panic, a filter's most likely, from ending more than its own exchange.
func (r *run) serveSafely(ctx context.Context) {
	defer func() {
		if p := recover(); p != nil {
			r.x.Fault = exchange.NewFault(exchange.FilterFailed, fmt.Errorf("panic: %v", p))
			r.w.Abort()
			r.engine.options.Logger.Error("an exchange panicked; it was cut, the others go on", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	r.serve(ctx)
}

func (r *run) serve(ctx context.Context) {
	defer r.cleanUp()
	fault := r.request(ctx)
	if fault == nil {
		fault = r.respond()
	}
	if fault != nil {
		r.fail(fault)
	}
}

// cleanUp leaves nothing behind that still uses the exchange.
func (r *run) cleanUp() {
	r.stopTimers()
	_ = r.x.ReqBody.Close() // who still reads it for the endpoint stops
	r.endAttempt()
	r.x.Life.End(nil)
	r.x.BytesIn = r.body.count.Load()
	for _, m := range r.body.mirrors {
		_ = m.Close()
	}
}

// stopTimers ends the time limits.
func (r *run) stopTimers() {
	stopTimer(&r.timer, r.x.Life)
	stopTimer(&r.attemptTimer, r.attempt.Life)
}

// stopTimer stops a timer that ends a life. One that is about to do so may come late: the life is not used again then.
func stopTimer(t **time.Timer, life *exchange.Life) {
	if *t != nil && !(*t).Stop() {
		life.Retire()
	}
	*t = nil
}

// limit ends a life after a time with a kind of fault.
func limit(after time.Duration, life *exchange.Life, kind exchange.Kind) *time.Timer {
	return time.AfterFunc(after, func() { life.End(exchange.NewFault(kind, nil)) })
}

// request takes the exchange to the point where the response's head is known, an endpoint's or a filter's: it stands in x.Resp.
func (r *run) request(ctx context.Context) *exchange.Fault {
	x := r.x
	if x.Fault != nil {
		return x.Fault
	}
	if fault := r.admit(); fault != nil {
		return fault
	}
	authority := x.Req.Authority
	sanitizeRequest(&x.Req)
	forward(x, authority)
	listener, fault := r.snapshot.Listener(&x.Peer, &x.Req)
	if fault != nil {
		return fault
	}
	r.listener, x.Caller = listener, r
	if listener.Tracer != nil {
		ctx = r.span.Retrace(x.Life, x, listener.Tracer)
	}
	replied, ran, fault := r.filter(ctx, listener.Chain)
	r.listenerRan = ran
	if fault != nil || replied {
		return fault
	}
	rule, fault := listener.Find(&x.Req)
	if fault != nil {
		return fault
	}
	r.rule, x.Route, r.handles = rule, rule.Ref, rule.Handles
	if rule.RequestTimeout > 0 {
		r.timer = limit(rule.RequestTimeout, x.Life, exchange.RequestTimeout)
	}

	replied, ran, fault = r.filter(ctx, rule.Chain)
	r.ruleRan = ran
	if fault != nil || replied {
		return fault
	}
	backend, fault := r.choose()
	if fault != nil {
		return fault
	}
	r.backend, r.handles, x.Cluster = backend, backend.Handles, backend.Name
	r.span.Routed(backend.Handles)
	replied, ran, fault = r.filter(ctx, backend.Chain)
	r.backendRan = ran
	if fault != nil || replied {
		return fault
	}
	r.span.Inject(&x.Req.Fields)
	r.body.source = x.ReqBody
	if rule.Retry != nil && x.ReqBody.Length() != 0 {
		r.body.keep = replayBytes
	}
	r.mirror()
	return r.forward()
}

// admit refuses what no route may decide on.
func (r *run) admit() *exchange.Fault {
	req := &r.x.Req
	switch {
	case req.Method == "TRACE":
		return exchange.NewFault(exchange.MethodRefused, errors.New("TRACE shows a client what proxies added to its request"))
	case req.Method == "CONNECT" && req.Protocol == "":
		return exchange.NewFault(exchange.MethodRefused, errors.New("CONNECT is for forward proxies; this is an ingress listener"))
	case !exchange.ValidAuthority(req.Authority):
		return exchange.NewFault(exchange.BadRequest, errors.New("the Host is not HOST or HOST:PORT"))
	}
	if req.Fields.Has(exchange.Expect) {
		if expect, _ := req.Fields.Lookup("Expect"); !strings.EqualFold(expect, "100-continue") {
			return exchange.NewFault(exchange.ExpectationFailed, nil)
		}
	}
	if err := req.Normalize(); err != nil {
		return exchange.AsFault(err, exchange.BadPath)
	}
	return nil
}

func (r *run) filter(ctx context.Context, chain filters.Chain) (replied bool, ran int, fault *exchange.Fault) {
	action, ran, err := chain.OnRequest(ctx, r.x)
	if err != nil {
		return false, ran, exchange.AsFault(err, exchange.FilterFailed)
	}
	return action == filters.Reply, ran, nil
}

// choose draws a backend by weight, unless the client's session has one.
func (r *run) choose() (*snapshot.Backend, *exchange.Fault) {
	if r.rule.TotalWeight == 0 {
		return nil, exchange.NewFault(exchange.NoBackends, nil)
	}
	if backend := r.resume(); backend != nil {
		return backend, nil
	}
	backend := &r.rule.Backends[0]
	if len(r.rule.Backends) > 1 {
		backend = r.rule.Draw(rand.Uint64N(r.rule.TotalWeight))
	}
	if backend.Invalid != "" {
		return nil, exchange.NewFault(exchange.InvalidBackend, errors.New(backend.Invalid))
	}
	return backend, nil
}

// respond runs the response side and streams the answer in x.Resp and x.RespBody to the client.
func (r *run) respond() *exchange.Fault {
	x := r.x
	if x.RespBody == nil {
		x.RespBody = exchange.NoBody
	}
	defer func() { _ = x.RespBody.Close() }()
	x.Resp.Fields = sanitizeResponse(x.Resp.Fields)
	r.persist()
	if r.backend != nil {
		r.backend.Chain.OnResponse(x, r.backendRan)
	}
	r.outgoing()
	length := x.RespBody.Length()
	if x.Attempts == 0 && asksGRPC(x) { // a filter's answer
		r.grpcFilterReply()
		length = -1
	}
	if x.Resp.Status == statusNotModified {
		length = -1 // the endpoint's length is of what it did not send
	}
	r.span.Answer(x.Resp.Fields)
	if err := r.w.Respond(&x.Resp, length); err != nil {
		return exchange.AsFault(err, exchange.ClientAborted) // or the answer holds what cannot be sent
	}
	r.started = true
	if r.attempt.Tunnel != nil {
		return r.tunnel(r.attempt.Tunnel)
	}
	if x.Req.Method == "HEAD" {
		return r.finish(nil)
	}
	if n, whole := ready(x.RespBody); n == 0 && !whole {
		// The body may be long in coming (events, gRPC, a slow page): its head does not wait for it.
		if err := r.w.Flush(); err != nil {
			return exchange.NewFault(exchange.ClientAborted, err)
		}
	}
	return r.copyBody()
}

// outgoing runs the response side of the rule's filters and the listener's.
func (r *run) outgoing() {
	if r.rule != nil {
		r.rule.Chain.OnResponse(r.x, r.ruleRan)
	}
	if r.listener != nil {
		r.listener.Chain.OnResponse(r.x, r.listenerRan)
	}
}

// ready asks a body what can be read without waiting. One that cannot tell has nothing.
func ready(body exchange.Body) (n int, whole bool) {
	if b, ok := body.(exchange.Ready); ok {
		return b.Ready()
	}
	return 0, false
}

// copyBody streams the response. What it has is flushed before it waits for more.
func (r *run) copyBody() *exchange.Fault {
	var memory buffer.Piece
	defer memory.Release()
	body := r.x.RespBody
	piece := memory.Next(0) // larger ones measured worse in this direction: what is read waits in the nearest cache to be written
	for {
		n, err := body.Read(piece)
		if n > 0 {
			wrote, werr := r.w.Write(piece[:n])
			r.x.BytesOut += int64(wrote)
			if werr == nil && err == nil {
				if more, whole := ready(body); more == 0 && !whole {
					werr = r.w.Flush()
				}
			}
			if werr != nil {
				return exchange.NewFault(exchange.ClientAborted, werr)
			}
		}
		if err == io.EOF {
			trailers := body.Trailers()
			if len(trailers) == 0 && r.x.ReqBody.Length() == 0 {
				// The endpoint is free for others before the client can know, and for its next request too.
				_ = body.Close()
				r.x.RespBody = exchange.NoBody
				r.endAttempt()
			}
			return r.finish(trailers)
		}
		if err != nil {
			return exchange.AsFault(err, exchange.UpstreamReset)
		}
	}
}

func (r *run) finish(trailers exchange.Fields) *exchange.Fault {
	if len(trailers) > 0 {
		trailers = withoutHop(trailers)
	}
	if err := r.w.Finish(trailers); err != nil {
		return exchange.AsFault(err, exchange.ClientAborted)
	}
	return nil
}

// fail turns a Fault into a reply, or into a visible break when the response has already begun.
func (r *run) fail(fault *exchange.Fault) {
	r.x.Fault = fault
	grpc := asksGRPC(r.x)
	if r.started {
		if !grpc || !r.endGRPC(fault) {
			r.w.Abort()
		}
		return
	}
	if fault.Kind == exchange.ClientAborted {
		r.x.Resp.Status = fault.Status
		r.w.Abort()
		return
	}
	if grpc {
		r.failGRPC(fault)
		return
	}
	text := []byte(strconv.Itoa(fault.Status) + " " + string(fault.Kind) + "\n")
	r.x.Resp.Status, r.x.Resp.Fields = fault.Status, r.x.Resp.Fields[:0]
	r.x.Resp.Fields.Add("Content-Type", "text/plain; charset=utf-8")
	if fault.Kind == exchange.MethodRefused {
		r.x.Resp.Fields.Add("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	r.outgoing()
	if r.w.Respond(&r.x.Resp, int64(len(text))) != nil {
		return
	}
	if r.x.Req.Method != "HEAD" {
		n, err := r.w.Write(text)
		r.x.BytesOut += int64(n)
		if err != nil {
			return
		}
	}
	_ = r.w.Finish(nil)
}
