package gateway

import (
	"math/rand/v2"
	"slices"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
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

// forward sends the request upstream, again where that is safe and wanted, and takes over the first answer that stands.
func (r *run) forward() *exchange.Fault {
	r.backend.Cluster.CountRequest()
	for number := 0; ; number++ {
		fault := r.try()
		if r.endpoint == nil || r.x.Life.Over() || !r.wantsAnother(number, fault) || !r.attempt.Detach() || !r.body.Rewind() ||
			!r.backend.Cluster.MayRetry() {
			return r.takeOver(fault)
		}
		r.tried = append(r.tried, r.endpoint)
		r.endAttempt()
		if r.rule.Retry != nil && !pause(r.x.Life, r.rule.Retry.Backoff, number) {
			return r.takeOver(r.x.Life.Fault())
		}
	}
}

// takeOver makes the attempt's answer the exchange's. What ended the exchange itself explains more than what that did to the attempt.
func (r *run) takeOver(fault *exchange.Fault) *exchange.Fault {
	if ended := r.x.Life.Fault(); ended != nil {
		return ended
	}
	if fault != nil {
		return fault
	}
	r.x.Resp, r.attempt.Response = r.attempt.Response, exchange.Response{}
	r.x.RespBody = r.attempt.Answer
	return nil
}

// wantsAnother decides on an attempt after the one with this number, counted from 0. A route that asks for retries says how many and
// when; without that a request is sent again only where the endpoint certainly did not start on it.
func (r *run) wantsAnother(number int, fault *exchange.Fault) bool {
	policy := r.rule.Retry
	switch {
	case policy == nil:
		return fault != nil && fault.Retryable && number < freeRetries
	case number >= policy.Attempts:
		return false
	case fault != nil:
		return retryable(fault, r.x.Req.Method)
	default:
		return slices.Contains(policy.Codes, r.attempt.Response.Status)
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
func pause(life *exchange.Life, backoff time.Duration, number int) bool {
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
	case <-life.Done():
		return false
	}
}

// try makes one attempt. Its endpoint and its time limit stay until endAttempt.
func (r *run) try() *exchange.Fault {
	endpoint, fault := r.backend.Cluster.PickSticky(r.x.Life, r.tried, r.sticky.endpoint)
	if fault != nil {
		return fault
	}
	r.endpoint = endpoint
	r.x.Endpoint = endpoint.String()
	r.x.Attempts++
	r.backend.Handles.Cluster().Begin()
	a := &r.attempt
	a.Reset()
	a.Request, a.Body, a.Inform = &r.x.Req, &r.body, r
	a.Response.Fields = r.x.Resp.Fields[:0] // the memory is lent; takeOver brings it back
	a.Life.Begin(r.x.Life)
	if r.rule.BackendTimeout > 0 {
		r.attemptTimer = limit(r.rule.BackendTimeout, a.Life, exchange.UpstreamTimeout)
	}
	return endpoint.RoundTrip(a)
}

// endAttempt gives up what the last attempt holds, if there was one.
func (r *run) endAttempt() {
	if r.endpoint == nil {
		return
	}
	stopTimer(&r.attemptTimer, r.attempt.Life)
	r.attempt.End()
	r.backend.Handles.Cluster().End()
	r.endpoint.Done()
	r.endpoint = nil
}

// Inform passes an interim response on, to clients that know what it is.
func (r *run) Inform(status int, fields exchange.Fields) {
	if r.x.Peer.Proto != exchange.HTTP10 {
		_ = r.w.Inform(status, sanitizeResponse(fields)) // a client that is gone shows at the final response
	}
}
