// Package gateway is the Engine: it ties sockets, routing, filters and upstreams together and takes each exchange through them.
//
//	socket -> downstream -> Engine -> snapshot.Find -> filters.Chain (request side)
//	       -> upstream (choose endpoint, send, stream back) -> filters.Chain (response side) -> downstream writes
//	       -> telemetry records once, last
//
// Apply swaps in a configuration: it is compiled beside the running one, and takes over at once for new exchanges; those under way
// finish on the one they began with. A configuration that does not compile leaves the running one in place.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/snapshot"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

// Options are the Engine's settings.
type Options struct {
	// Filters are those this program was built with.
	Filters *filters.Set
	// Telemetry records exchanges; nil counts and writes no log.
	Telemetry *telemetry.Telemetry
	// Logger gets what is not about one exchange; nil discards it.
	Logger *slog.Logger
	Limits downstream.Limits
	// DrainTime is how long a socket that a new configuration closes waits for its exchanges. Default 30 s.
	DrainTime time.Duration
	// Detached makes an Engine that opens no socket, for Explain alone.
	Detached bool
	// Resolver looks up the names of DNS clusters; nil is the system's.
	Resolver upstream.Resolver
}

// Engine runs exchanges on the current snapshot. Its methods are safe for concurrent use.
type Engine struct {
	options    Options
	telemetry  *telemetry.Telemetry
	upstream   *upstream.Manager
	downstream *downstream.Server
	compiler   *snapshot.Compiler

	current atomic.Pointer[snapshot.Snapshot]
	mu      sync.Mutex // serialises Apply
	version uint64     // counts the configurations applied; guarded by mu

	runs       runPool
	flows      flows
	mirrors    sync.WaitGroup
	lifetime   context.Context // bounds the mirrored requests, which outlive their exchanges; ends with Shutdown
	endLife    context.CancelFunc
	mirrorRoom chan struct{} // one token for each mirrored request under way
}

// mirrorsAtOnce bounds the mirrored requests under way; more are dropped.
const mirrorsAtOnce = 1024

// New returns an Engine that serves nothing until Apply.
func New(o Options) (*Engine, error) {
	if o.Filters == nil {
		return nil, errors.New("gateway: Options.Filters is missing")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.DrainTime == 0 {
		o.DrainTime = 30 * time.Second
	}
	if o.Telemetry == nil {
		counters, err := telemetry.New(context.Background(), telemetry.Options{})
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		o.Telemetry = counters
	}
	e := &Engine{options: o, telemetry: o.Telemetry, mirrorRoom: make(chan struct{}, mirrorsAtOnce)}
	e.lifetime, e.endLife = context.WithCancel(context.Background())
	e.upstream = upstream.NewManager(upstream.Options{
		Logger:        o.Logger,
		Resolve:       o.Resolver,
		OnConnections: o.Telemetry.UpstreamConnections,
	})
	e.compiler = snapshot.NewCompiler(o.Filters, o.Telemetry)
	e.compiler.Tracer, e.compiler.LetGo = e.tracer, e.letGoTracers
	e.current.Store(snapshot.Empty())
	e.downstream = downstream.New(downstream.Options{
		Handler:       e,
		Streams:       e,
		TLS:           e.tls,
		Limits:        o.Limits,
		DrainTime:     o.DrainTime,
		Logger:        o.Logger,
		OnConnections: o.Telemetry.DownstreamConnections,
		OnClosed:      o.Telemetry.RemoveBind,
	})
	return e, nil
}

// Apply makes a configuration the running one. An error means that it was refused as a whole and the previous one goes on.
func (e *Engine) Apply(_ context.Context, cfg *config.Config) (config.Applied, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	began := time.Now()
	if err := cfg.Validate(); err != nil {
		e.telemetry.ConfigRejected()
		return config.Applied{}, fmt.Errorf("the configuration is refused; the running one stays: %w", err)
	}
	lease, clusterProblems := e.upstream.Apply(cfg.Clusters, cfg.Certificates...)
	next, err := e.compiler.Compile(cfg, lease)
	if err != nil {
		lease.Release()
		e.telemetry.ConfigRejected()
		return config.Applied{}, fmt.Errorf("the configuration does not compile; the running one stays: %w", err)
	}
	previous := e.current.Swap(next)
	var sockets map[string]error
	if !e.options.Detached {
		sockets = e.downstream.Apply(next.Sockets())
	}
	e.flows.leave(next.Config, e.options.DrainTime)
	previous.Release()
	e.compiler.Sweep()
	e.version++
	e.telemetry.ConfigApplied(strconv.FormatUint(e.version, 10), time.Now(), time.Since(began))

	applied := config.Applied{Listeners: map[string]error{}, Clusters: clusterProblems}
	for _, l := range cfg.Listeners {
		for _, addr := range l.Binds() {
			if err := sockets[l.BindKey(addr)]; err != nil {
				applied.Listeners[l.Name] = err
			}
		}
	}
	return applied, nil
}

// Shutdown stops accepting, lets exchanges finish until ctx ends, and then cuts what is left, which its error says.
func (e *Engine) Shutdown(ctx context.Context) error {
	err := e.downstream.Shutdown(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	err = errors.Join(err, e.telemetry.ShutdownTracers(ctx)) // while their clusters are there
	e.endLife()
	e.mirrors.Wait()
	e.current.Swap(snapshot.Empty()).Release()
	return errors.Join(err, e.upstream.Close())
}

func (e *Engine) tls(bind string, quic bool, hello *tls.ClientHelloInfo) (downstream.Handshake, error) {
	return e.current.Load().Handshake(bind, quic, hello)
}

// pin returns the current snapshot with a reference that the caller releases.
func (e *Engine) pin() *snapshot.Snapshot {
	for {
		if s := e.current.Load(); s.Acquire() {
			return s
		}
		// It was replaced and released between the two steps; the next load finds its successor.
	}
}

// ServeExchange takes one exchange from its request head to the last byte of its response.
func (e *Engine) ServeExchange(x *exchange.Exchange, w exchange.Responder) {
	snap := e.pin()
	defer snap.Release()
	r := e.runs.get(e)
	defer e.runs.put(r)
	r.snapshot, r.x, r.w = snap, x, w
	ctx, span := e.telemetry.Begin(x.Life, x)
	r.span = span
	r.serveSafely(ctx)
	e.telemetry.End(x, r.handles, &r.span)
}

// runPool lends the state of exchanges on their way, so that one more exchange allocates none.
type runPool struct{ pool sync.Pool }

func (p *runPool) get(e *Engine) *run {
	if r, ok := p.pool.Get().(*run); ok {
		return r
	}
	return &run{engine: e}
}

func (p *runPool) put(r *run) {
	r.reset()
	p.pool.Put(r)
}
