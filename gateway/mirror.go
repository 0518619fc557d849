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
	engine, pinned := r.engine, r.snapshot // the copies outlive the run, which is used again
	for _, name := range r.x.Mirrors {
		cluster := pinned.Cluster(name)
		if cluster == nil || r.x.Req.Protocol != "" {
			continue
		}
		select {
		case engine.mirrorRoom <- struct{}{}:
		default:
			engine.telemetry.MirrorDropped()
			continue
		}
		var body exchange.Body = exchange.NoBody
		if length := r.body.Length(); length != 0 {
			m := newMirrorBody(length)
			r.body.mirrors = append(r.body.mirrors, m)
			body = m
		}
		most := r.rule.RequestTimeout
		if most == 0 {
			most = mirrorTime
		}
		ctx, cancel := context.WithTimeout(engine.lifetime, most)
		head := r.x.Req.Clone()
		head.Fields.DelID(exchange.Expect) // nobody waits for the mirror's 100
		pinned.Acquire()
		engine.mirrors.Go(func() {
			defer func() {
				cancel()
				_ = body.Close()
				pinned.Release()
				<-engine.mirrorRoom
			}()
			engine.sendMirror(ctx, cluster, &head, body)
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
	life := &exchange.Life{}
	defer context.AfterFunc(ctx, func() { life.End(nil) })()
	attempt := &upstream.Attempt{}
	attempt.Reset()
	attempt.Request, attempt.Body = head, body
	attempt.Life.Begin(life)
	defer attempt.End()
	defer func() { _ = body.Close() }() // whoever still reads it stops
	if fault := endpoint.RoundTrip(attempt); fault != nil {
		return
	}
	// Reading the answer keeps the connection usable; the context bounds it.
	_, _ = copyBytes(io.Discard, attempt.Answer)
}
