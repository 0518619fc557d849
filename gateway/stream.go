package gateway

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/snapshot"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

// A flow is a client's connection, or its datagrams, on the way to an endpoint, unread. What decides on it, the snapshot, is held only until
// the endpoint is known: a flow may last for days, and no route that changes meanwhile cuts it.
//
//	find listener, route -> draw backend -> choose endpoint, connect, another if that fails -> carry both ways -> record
//
// A flow that cannot be served is ended without a byte: there is no protocol to say more in.
type flow struct {
	engine  *Engine
	record  exchange.Flow
	life    *exchange.Life
	handles *telemetry.FlowHandles // nil until the listener is known
	tracer  *telemetry.Tracer      // the listener's; nil where flows are traced as all are
	backend *snapshot.StreamBackend
	group   *flowGroup

	endpoint *upstream.Endpoint // held until end
}

// ender is a stream or session that can be ended.
type ender interface{ End(*exchange.Fault) }

// connectAttempts is how many endpoints a flow tries at most.
const connectAttempts = 1 + freeRetries

// errHandshake is the cause of a Misdirected stream: between its handshake and now the configuration changed.
var errHandshake = errors.New("the listener changed while the client was connecting")

// ServeStream carries a client's connection.
func (e *Engine) ServeStream(s *downstream.Stream) {
	f := &flow{engine: e, record: exchange.Flow{Peer: *s.Peer(), Start: s.Start()}, life: s.Life()}
	f.record.Fault = f.serveStream(s)
	f.record.BytesIn, f.record.BytesOut = s.Bytes()
	f.end(s)
}

func (f *flow) serveStream(s *downstream.Stream) *exchange.Fault {
	snap := f.engine.pin()
	fault := f.route(snap, s.Opened())
	if fault == nil && f.record.Peer.TLS != nil && !s.Opened() && !s.Unopened() {
		fault = exchange.NewFault(exchange.Misdirected, errHandshake)
	}
	var endpoint *upstream.Stream
	if fault == nil {
		f.join(snap, s)
		endpoint, fault = f.connect(s.Unopened())
	}
	snap.Release()
	if fault != nil {
		return fault
	}
	defer func() { _ = endpoint.Close() }()
	return f.carry(s, endpoint)
}

// ServeSession carries a client's datagrams.
func (e *Engine) ServeSession(s *downstream.Session) {
	f := &flow{engine: e, record: exchange.Flow{Peer: *s.Peer(), Start: s.Start()}, life: s.Life()}
	f.record.Fault = f.serveSession(s)
	f.record.BytesIn, f.record.BytesOut = s.Bytes()
	if f.handles != nil {
		f.handles.Moved(f.record.BytesIn, f.record.BytesOut)
	}
	f.end(s)
}

func (f *flow) serveSession(s *downstream.Session) *exchange.Fault {
	snap := f.engine.pin()
	fault := f.route(snap, false)
	var endpoint *upstream.Packets
	if fault == nil {
		f.join(snap, s)
		endpoint, fault = f.open()
	}
	snap.Release()
	if fault != nil {
		return fault
	}
	defer func() { _ = endpoint.Close() }()
	return s.Relay(endpoint)
}

// route finds the flow's backend.
func (f *flow) route(snap *snapshot.Snapshot, opened bool) *exchange.Fault {
	listener, rule, fault := snap.FindStream(&f.record.Peer, opened)
	if listener != nil {
		f.record.Listener = listener.Config.Name
		if listener.Tracer != nil {
			f.tracer = listener.Tracer
			f.engine.telemetry.HoldTracer(f.tracer) // the flow may outlive the snapshot
		}
		f.count(listener.Unrouted())
	}
	if rule != nil {
		f.record.Route = rule.Ref
		f.count(rule.Handles)
	}
	if fault != nil {
		return fault
	}
	if rule.TotalWeight == 0 {
		return exchange.NewFault(exchange.NoBackends, nil)
	}
	f.backend = &rule.Backends[0]
	if len(rule.Backends) > 1 {
		f.backend = rule.Draw(rand.Uint64N(rule.TotalWeight))
	}
	f.record.Cluster = f.backend.Name
	f.count(f.backend.Handles)
	if f.backend.Invalid != "" {
		return exchange.NewFault(exchange.InvalidBackend, errors.New(f.backend.Invalid))
	}
	return nil
}

// join adds the flow to those of its listener, which leave with that.
func (f *flow) join(snap *snapshot.Snapshot, which ender) {
	e := f.engine
	e.flows.join(f, which)
	if now := e.current.Load(); now != snap {
		e.flows.leave(now.Config, e.options.DrainTime) // it may have gone before
	}
}

// count makes h what records the flow. It is begun by connect or end, when no other can follow.
func (f *flow) count(h *telemetry.FlowHandles) { f.handles = h }

// connect opens a stream to one of the backend's endpoints. What is TLS already is not encrypted again.
func (f *flow) connect(unopened bool) (*upstream.Stream, *exchange.Fault) {
	f.handles.Begin()
	var tried []*upstream.Endpoint
	for {
		fault := f.pick(tried)
		if fault != nil {
			return nil, fault
		}
		stream, fault := f.backend.Cluster.Connect(f.life, f.endpoint, unopened)
		if fault == nil {
			return stream, nil
		}
		if ended := f.life.Fault(); ended != nil {
			return nil, ended
		}
		if tried = append(tried, f.endpoint); len(tried) == connectAttempts {
			return nil, fault
		}
		f.release()
	}
}

// open opens a socket to one of the backend's endpoints.
func (f *flow) open() (*upstream.Packets, *exchange.Fault) {
	f.handles.Begin()
	if fault := f.pick(nil); fault != nil {
		return nil, fault
	}
	return f.backend.Cluster.Packets(f.endpoint)
}

func (f *flow) pick(tried []*upstream.Endpoint) *exchange.Fault {
	endpoint, fault := f.backend.Cluster.Pick(f.life, tried)
	if fault != nil {
		return fault
	}
	f.endpoint = endpoint
	f.record.Endpoint = endpoint.String()
	f.record.Attempts++
	f.backend.Handles.Cluster().Begin()
	return nil
}

// release gives up the endpoint, if there is one.
func (f *flow) release() {
	if f.endpoint != nil {
		f.backend.Handles.Cluster().End()
		f.endpoint.Done()
		f.endpoint = nil
	}
}

// end records the flow.
func (f *flow) end(which ender) {
	f.release()
	if f.group != nil {
		f.engine.flows.part(f, which)
	} else if f.handles != nil {
		f.handles.Begin() // it came to no connect
	}
	f.engine.telemetry.EndFlow(&f.record, f.handles, f.tracer)
	if f.tracer != nil {
		f.engine.letGoTracers([]*telemetry.Tracer{f.tracer})
	}
}

// carry passes bytes both ways until both sides have ended, or one of them broke. An end is passed on as such: a half-closed connection goes
// on the other way. So does one whose other way nobody takes any more: an endpoint may have answered and closed, and what it said is still
// to be read. That a side is broken shows where it is read from.
func (f *flow) carry(client *downstream.Stream, endpoint *upstream.Stream) *exchange.Fault {
	here := &side{Stream: client, socket: client.Socket, fault: exchange.ClientAborted}
	there := &side{Stream: endpoint, socket: endpoint.Socket, fault: exchange.UpstreamReset}
	up := &way{from: here, to: there, moved: func(n int64) { f.handles.Moved(n, 0) }, unread: func(n int64) { client.Moved(n, 0) }, ahead: client.Ahead}
	down := &way{from: there, to: here, moved: func(n int64) { f.handles.Moved(0, n) }, unwritten: func(n int64) { client.Moved(0, n) }}
	var once sync.Once
	var failed *exchange.Fault
	broken := func(fault *exchange.Fault) {
		once.Do(func() {
			failed = fault
			_ = endpoint.Close()
			_ = client.Close()
		})
	}
	var both sync.WaitGroup
	both.Go(func() { up.run(broken) })
	down.run(broken)
	both.Wait()
	if failed == nil && up.refused {
		client.Linger()
	}
	if ended := client.Life().Fault(); ended != nil {
		return ended
	}
	return failed
}

func forFlows(l *config.Listener) bool {
	return l.Protocol != config.HTTP && l.Protocol != config.HTTPS
}

// flows is those under way by listener. When a listener goes whose socket stays, because others share it, its flows have the drain time.
type flows struct {
	mu     sync.Mutex
	groups map[string]*flowGroup // guarded by mu
}

// flowGroup is the flows of one listener.
type flowGroup struct {
	members map[ender]struct{} // guarded by flows.mu
}

// join adds a flow to its listener's.
func (fs *flows) join(f *flow, which ender) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	g := fs.groups[f.record.Listener]
	if g == nil {
		g = &flowGroup{members: map[ender]struct{}{}}
		if fs.groups == nil {
			fs.groups = map[string]*flowGroup{}
		}
		fs.groups[f.record.Listener] = g
	}
	g.members[which] = struct{}{}
	f.group = g
}

// part takes a flow out.
func (fs *flows) part(f *flow, which ender) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(f.group.members, which)
	if len(f.group.members) == 0 && fs.groups[f.record.Listener] == f.group {
		delete(fs.groups, f.record.Listener)
	}
}

// errListenerGone is the cause of the end of a flow that outlived its listener.
var errListenerGone = errors.New("the listener is gone and the drain time over")

// leave gives the flows of listeners that a configuration does not have the drain time, and then ends them.
func (fs *flows) leave(cfg *config.Config, drain time.Duration) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if len(fs.groups) == 0 {
		return
	}
	stays := make(map[string]bool, len(cfg.Listeners))
	for _, l := range cfg.Listeners {
		stays[l.Name] = forFlows(l)
	}
	for name, g := range fs.groups {
		if !stays[name] {
			delete(fs.groups, name)
			time.AfterFunc(drain, func() { fs.cut(g) })
		}
	}
}

func (fs *flows) cut(g *flowGroup) {
	fs.mu.Lock()
	var left []ender
	for m := range g.members {
		left = append(left, m)
	}
	fs.mu.Unlock()
	for _, m := range left {
		m.End(exchange.NewFault(exchange.ClientAborted, errListenerGone))
	}
}
