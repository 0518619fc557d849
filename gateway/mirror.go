package gateway

import (
	"context"
	"io"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

// mirrorTime bounds a mirrored request whose route has no timeout.
const mirrorTime = 30 * time.Second

// mirror starts the copies that the mirror filters asked for. They carry the request as it goes to the backend; their answers are
// read and dropped, their failures are nobody's.
func (r *run) mirror() {
	for _, name := range r.x.Mirrors {
		cluster := r.snapshot.Cluster(name)
		if cluster == nil || r.x.Req.Protocol != "" {
			continue
		}
		select {
		case r.engine.mirrorRoom <- struct{}{}:
		default:
			r.engine.telemetry.MirrorDropped()
			continue
		}
		var body exchange.Body = exchange.NoBody
		if length := r.body.Length(); length != 0 {
			m := newMirrorBody(length)
			r.body.mirrors = append(r.body.mirrors, m)
			body = m
		}
		limit := r.rule.RequestTimeout
		if limit == 0 {
			limit = mirrorTime
		}
		ctx, cancel := context.WithTimeout(r.engine.lifetime, limit)
		head := r.x.Req.Clone()
		head.Fields.DelID(exchange.Expect) // nobody waits for the mirror's 100
		r.snapshot.Acquire()
		r.engine.mirrors.Go(func() {
			defer func() {
				cancel()
				_ = body.Close()
				r.snapshot.Release()
				<-r.engine.mirrorRoom
			}()
			r.engine.sendMirror(ctx, cluster, &head, body)
		})
	}
}

func (e *Engine) sendMirror(ctx context.Context, cluster *upstream.Cluster, head *exchange.Head, body exchange.Body) {
	endpoint, fault := cluster.Pick(ctx, nil)
	if fault != nil {
		return
	}
	defer endpoint.Done()
	counters := e.telemetry.Cluster(cluster.Name())
	counters.Begin()
	defer counters.End()
	answer, fault := endpoint.RoundTrip(ctx, &upstream.Attempt{Request: head, Body: body})
	if fault != nil {
		return
	}
	// Reading the answer keeps the connection usable; the context bounds it.
	_, _ = e.buffers.copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
}
