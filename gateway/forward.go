package gateway

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

const (
	// replayBytes bounds what is kept of a request body for another attempt. A longer body is not sent twice.
	replayBytes = 64 << 10
	// freeRetries bounds the attempts made again without the route asking for it: only where the endpoint certainly did not start on
	// the request.
	freeRetries = 2
	// defaultBackoff is the least wait before a retry that a route asked for.
	defaultBackoff = 25 * time.Millisecond
	// maxBackoff bounds the doubling.
	maxBackoff = 30 * time.Second
)

// forward sends the request upstream, again where that is safe and wanted, and returns the first answer that stands.
func (r *run) forward(ctx context.Context) (*upstream.Answer, *exchange.Fault) {
	var tried []*upstream.Endpoint
	for number := 0; ; number++ {
		attempt := &upstream.Attempt{Request: &r.x.Req, Body: r.body, Inform: r.inform}
		answer, fault := r.attempt(ctx, attempt, tried)
		if r.endpoint == nil || ctx.Err() != nil || !r.wantsAnother(number, answer, fault) || !attempt.Detach() || !r.body.Rewind() {
			return answer, fault
		}
		if answer != nil {
			_ = answer.Body.Close()
		}
		tried = append(tried, r.endpoint)
		r.endAttempt()
		if r.rule.Retry != nil && !pause(ctx, r.rule.Retry.Backoff, number) {
			return nil, exchange.AsFault(context.Cause(ctx), exchange.ClientAborted)
		}
	}
}

// wantsAnother decides on an attempt after the one with this number, counted from 0. A route that asks for retries says how many and
// when; without that a request is sent again only where the endpoint certainly did not start on it.
func (r *run) wantsAnother(number int, answer *upstream.Answer, fault *exchange.Fault) bool {
	policy := r.rule.Retry
	switch {
	case policy == nil:
		return fault != nil && fault.Retryable && number < freeRetries
	case number >= policy.Attempts:
		return false
	case fault != nil:
		return retryable(fault, r.x.Req.Method)
	default:
		return slices.Contains(policy.Codes, answer.Response.Status)
	}
}

// retryable reports whether a failed attempt may be made again for a route that asked for retries: when the endpoint cannot have
// started on it, or when doing the request twice means the same as once (RFC 9110 9.2.2).
func retryable(fault *exchange.Fault, method string) bool {
	if fault.Retryable {
		return true
	}
	switch fault.Kind {
	case exchange.UpstreamReset, exchange.UpstreamTimeout, exchange.UpstreamProtocol:
	default:
		return false
	}
	switch method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	}
	return false
}

// pause waits before the retry that follows the attempt with this number; false means that the exchange ended meanwhile.
func pause(ctx context.Context, backoff time.Duration, number int) bool {
	if backoff == 0 {
		backoff = defaultBackoff
	}
	wait := min(backoff<<min(number, 10), max(maxBackoff, backoff))
	wait += time.Duration(rand.Int64N(int64(wait)/4 + 1)) // never less than asked for
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt makes one try. Its endpoint and its time limit stay until endAttempt.
func (r *run) attempt(ctx context.Context, a *upstream.Attempt, tried []*upstream.Endpoint) (*upstream.Answer, *exchange.Fault) {
	endpoint, fault := r.backend.Cluster.Pick(ctx, tried)
	if fault != nil {
		return nil, fault
	}
	r.endpoint = endpoint
	r.x.Endpoint = endpoint.String()
	r.x.Attempts++
	r.backend.Handles.Cluster().Begin()
	ctx, r.cancelAttempt = context.WithCancelCause(ctx)
	if limit := r.rule.BackendTimeout; limit > 0 {
		cancel := r.cancelAttempt
		r.attemptTimer = time.AfterFunc(limit, func() { cancel(exchange.NewFault(exchange.UpstreamTimeout, nil)) })
	}
	return endpoint.RoundTrip(ctx, a)
}

// endAttempt gives up what the last attempt holds, if there was one.
func (r *run) endAttempt() {
	if r.endpoint == nil {
		return
	}
	if r.attemptTimer != nil {
		r.attemptTimer.Stop()
		r.attemptTimer = nil
	}
	r.cancelAttempt(nil)
	r.backend.Handles.Cluster().End()
	r.endpoint.Done()
	r.endpoint = nil
}

// inform passes an interim response on, to clients that know what it is. It is called from the goroutine that reads from the endpoint,
// which may be late: after the final response has begun nothing may be written.
func (r *run) inform(status int, fields exchange.Fields) {
	r.interim.Lock()
	defer r.interim.Unlock()
	if !r.answered && r.x.Peer.Proto != exchange.HTTP10 {
		_ = r.w.Inform(status, sanitizeResponse(fields)) // a client that is gone shows at the final response
	}
}

// endInterim makes the response writer this goroutine's own.
func (r *run) endInterim() {
	r.interim.Lock()
	defer r.interim.Unlock()
	r.answered = true
}
