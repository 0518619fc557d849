package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/snapshot"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

// Call sends a filter's request on the snapshot that the exchange pinned. It implements exchange.Caller.
func (r *run) Call(c *exchange.Call) *exchange.Fault {
	return r.engine.call(r.snapshot, r.x.Life, c)
}

// call sends one request of the gateway's own and reads its answer. It ends with parent.
func (e *Engine) call(pinned *snapshot.Snapshot, parent *exchange.Life, c *exchange.Call) *exchange.Fault {
	cluster := pinned.Cluster(c.Cluster)
	if cluster == nil {
		return exchange.NewFault(exchange.InvalidBackend, fmt.Errorf("there is no cluster %s", c.Cluster))
	}
	life := &exchange.Life{}
	life.Begin(parent)
	defer life.Leave()
	timer := limit(cmp.Or(c.Timeout, exchange.DefaultCallTimeout), life, exchange.UpstreamTimeout)
	defer timer.Stop()
	var tried []*upstream.Endpoint
	for {
		endpoint, fault := cluster.Pick(life, tried)
		if fault == nil {
			fault = e.callOnce(endpoint, life, c)
		}
		if ended := life.Fault(); ended != nil {
			return ended
		}
		if fault == nil || endpoint == nil || !fault.Retryable || len(tried) >= freeRetries {
			return fault
		}
		tried = append(tried, endpoint)
	}
}

// callOnce makes one attempt of a call.
func (e *Engine) callOnce(endpoint *upstream.Endpoint, life *exchange.Life, c *exchange.Call) *exchange.Fault {
	defer endpoint.Done()
	counters := e.telemetry.Cluster(c.Cluster)
	counters.Begin()
	defer counters.End()
	a := &upstream.Attempt{}
	a.Reset()
	a.Request, a.Body = c.Head, exchange.Bytes(c.Body)
	a.Life.Begin(life)
	defer a.End()
	if fault := endpoint.RoundTrip(a); fault != nil {
		return fault
	}
	if a.Tunnel != nil {
		return exchange.NewFault(exchange.UpstreamProtocol, errors.New("the endpoint switched protocols without being asked"))
	}
	body, err := readBody(a.Answer, cmp.Or(c.MaxAnswer, exchange.DefaultMaxAnswer))
	if err != nil {
		return exchange.AsFault(err, exchange.UpstreamReset)
	}
	c.Answer = exchange.Response{Status: a.Response.Status, Fields: a.Response.Fields.Copy()}
	c.AnswerBody, c.Trailers = body, a.Answer.Trailers().Copy()
	return nil
}

// readBody reads a body of at most so many bytes to its end.
func readBody(body exchange.Body, most int) ([]byte, error) {
	out := make([]byte, 0, min(max(body.Length(), 512), int64(most))+1)
	for {
		if len(out) == cap(out) {
			out = append(out, 0)[:len(out)]
		}
		n, err := body.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		switch {
		case len(out) > most:
			return nil, exchange.NewFault(exchange.UpstreamProtocol, fmt.Errorf("the answer has more than %d bytes", most))
		case err == io.EOF:
			return out, nil
		case err != nil:
			return nil, err
		}
	}
}

// callTime bounds a call that no exchange waits for.
const callTime = 10 * time.Second
