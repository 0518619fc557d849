package gateway

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/snapshot"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

// statusNotModified answers a conditional request without the content (RFC 9110 15.4.5).
const statusNotModified = 304

// run is one exchange on its way.
type run struct {
	engine   *Engine
	snapshot *snapshot.Snapshot
	x        *exchange.Exchange
	w        exchange.Responder
	handles  *telemetry.Handles
	span     telemetry.Span

	rule    *snapshot.Rule
	backend *snapshot.Backend
	// How many filters of each chain took part: their response side runs.
	ruleRan, backendRan int

	body    *requestBody
	ended   context.CancelCauseFunc
	timer   *time.Timer // of the request timeout
	started bool        // the final response head is out

	interim  sync.Mutex // serialises interim responses with the final one
	answered bool       // the final response is next; guarded by interim

	// What the last attempt holds until endAttempt.
	endpoint      *upstream.Endpoint
	cancelAttempt context.CancelCauseFunc
	attemptTimer  *time.Timer
}

func (r *run) serve(ctx context.Context) {
	ctx, r.ended = context.WithCancelCause(ctx)
	defer r.cleanUp()
	answer, fault := r.request(ctx)
	r.endInterim()
	if fault == nil {
		fault = r.respond(answer)
	}
	if fault != nil {
		r.fail(fault)
	}
}

func (r *run) cleanUp() {
	r.stopTimers()
	r.endAttempt()
	r.ended(nil)
	if r.body != nil {
		r.x.BytesIn = r.body.count.Load()
		for _, m := range r.body.mirrors {
			_ = m.Close()
		}
	}
}

// stopTimers ends the time limits.
func (r *run) stopTimers() {
	for _, t := range []*time.Timer{r.timer, r.attemptTimer} {
		if t != nil {
			t.Stop()
		}
	}
}

// request takes the exchange to the point where the response's head is known: an endpoint's or a filter's.
func (r *run) request(ctx context.Context) (*upstream.Answer, *exchange.Fault) {
	x := r.x
	if x.Fault != nil {
		return nil, x.Fault
	}
	if fault := r.admit(); fault != nil {
		return nil, fault
	}
	authority := x.Req.Authority
	sanitizeRequest(&x.Req)
	forward(x, authority)
	rule, fault := r.snapshot.Find(&x.Peer, &x.Req)
	if fault != nil {
		return nil, fault
	}
	r.rule, x.Route, r.handles = rule, rule.Ref, rule.Handles
	if limit := rule.RequestTimeout; limit > 0 {
		r.timer = time.AfterFunc(limit, func() { r.ended(exchange.NewFault(exchange.RequestTimeout, nil)) })
	}

	replied, ran, fault := r.filter(ctx, rule.Chain)
	r.ruleRan = ran
	if fault != nil || replied {
		return r.local(), fault
	}
	backend, fault := r.choose()
	if fault != nil {
		return nil, fault
	}
	r.backend, r.handles, x.Cluster = backend, backend.Handles, backend.Name
	r.span.Routed(backend.Handles)
	replied, ran, fault = r.filter(ctx, backend.Chain)
	r.backendRan = ran
	if fault != nil || replied {
		return r.local(), fault
	}
	r.span.Inject(&x.Req.Fields)
	r.body = &requestBody{source: x.ReqBody}
	if rule.Retry != nil && x.ReqBody.Length() != 0 {
		r.body.keep = replayBytes
	}
	r.mirror()
	return r.forward(ctx)
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
	if expect, ok := req.Fields.Lookup("Expect"); ok && !strings.EqualFold(expect, "100-continue") {
		return exchange.NewFault(exchange.ExpectationFailed, nil)
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

// local is the answer that a filter gave.
func (r *run) local() *upstream.Answer {
	body := r.x.RespBody
	if body == nil {
		body = exchange.NoBody
	}
	return &upstream.Answer{Response: r.x.Resp, Body: body}
}

// choose draws a backend by weight.
func (r *run) choose() (*snapshot.Backend, *exchange.Fault) {
	if r.rule.TotalWeight == 0 {
		return nil, exchange.NewFault(exchange.NoBackends, nil)
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

// respond runs the response side and streams the answer to the client.
func (r *run) respond(answer *upstream.Answer) *exchange.Fault {
	x := r.x
	x.Resp, x.RespBody = answer.Response, answer.Body
	defer func() {
		// The attempt ends first: an HTTP/2 client's Close waits for its request to be sent, which the client may never finish.
		r.endAttempt()
		_ = answer.Body.Close()
	}()
	x.Resp.Fields = sanitizeResponse(x.Resp.Fields)
	if r.backend != nil {
		r.backend.Chain.OnResponse(x, r.backendRan)
	}
	r.rule.Chain.OnResponse(x, r.ruleRan)
	length := x.RespBody.Length()
	if x.Resp.Status == statusNotModified {
		length = -1 // the endpoint's length is of what it did not send
	}
	if err := r.w.Respond(&x.Resp, length); err != nil {
		return exchange.NewFault(exchange.ClientAborted, err)
	}
	r.started = true
	if answer.Tunnel != nil {
		return r.tunnel(answer.Tunnel)
	}
	if x.Req.Method == "HEAD" {
		return r.finish(nil)
	}
	if length < 0 {
		// A body without length may be long in coming (events, gRPC): its head does not wait for it.
		if err := r.w.Flush(); err != nil {
			return exchange.NewFault(exchange.ClientAborted, err)
		}
	}
	return r.copyBody(length)
}

// copyBody streams the response. What came in less than a full buffer is flushed, because more may be long in coming: events, gRPC
// messages, slow pages.
func (r *run) copyBody(length int64) *exchange.Fault {
	buffer := r.engine.buffers.get()
	defer r.engine.buffers.put(buffer)
	body := r.x.RespBody
	for {
		n, err := body.Read(*buffer)
		if n > 0 {
			wrote, werr := r.w.Write((*buffer)[:n])
			r.x.BytesOut += int64(wrote)
			if werr == nil && err == nil && n < len(*buffer) && r.x.BytesOut != length {
				werr = r.w.Flush()
			}
			if werr != nil {
				return exchange.NewFault(exchange.ClientAborted, werr)
			}
		}
		if err == io.EOF {
			return r.finish(body.Trailers())
		}
		if err != nil {
			return exchange.AsFault(err, exchange.UpstreamReset)
		}
	}
}

func (r *run) finish(trailers exchange.Fields) *exchange.Fault {
	if err := r.w.Finish(withoutHop(trailers)); err != nil {
		return exchange.NewFault(exchange.ClientAborted, err)
	}
	return nil
}

// fail turns a Fault into a reply, or into a visible break when the response has already begun.
func (r *run) fail(fault *exchange.Fault) {
	r.x.Fault = fault
	if r.started {
		r.w.Abort()
		return
	}
	if fault.Kind == exchange.ClientAborted {
		r.x.Resp.Status = fault.Status
		r.w.Abort()
		return
	}
	text := []byte(strconv.Itoa(fault.Status) + " " + string(fault.Kind) + "\n")
	r.x.Resp = exchange.Response{Status: fault.Status}
	r.x.Resp.Fields.Add("Content-Type", "text/plain; charset=utf-8")
	if fault.Kind == exchange.MethodRefused {
		r.x.Resp.Fields.Add("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	if r.rule != nil {
		r.rule.Chain.OnResponse(r.x, r.ruleRan)
	}
	if r.w.Respond(&r.x.Resp, int64(len(text))) != nil || r.x.Req.Method == "HEAD" {
		return
	}
	n, err := r.w.Write(text)
	r.x.BytesOut += int64(n)
	if err == nil {
		_ = r.w.Finish(nil)
	}
}
