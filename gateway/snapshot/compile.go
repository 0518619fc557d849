package snapshot

import (
	"errors"
	"fmt"
	"slices"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/gateway/upstream"
	"gatehouse.dev/gatehouse/routing"
)

// Compiler compiles configurations one after another and takes over from one to the next what did not change: a route whose
// *config.Route is the same, a listener with the same routes. It is not safe for concurrent use.
type Compiler struct {
	filters   *filters.Set
	telemetry *telemetry.Telemetry
	tickets   *ticketKeys
	rules     uint64 // counts clientRules
	// Tracer makes the Tracer of a listener, and cluster is where its spans go, nil for where all go. The Engine sets it before the first
	// Compile; without it listeners are traced as all are. LetGo takes the Tracers back, from any goroutine.
	Tracer func(t *config.Tracing, cluster *config.Cluster) (*telemetry.Tracer, error)
	LetGo  func([]*telemetry.Tracer)

	routes    map[*config.Route]*route
	listeners map[string]*Listener // by name
	tls       map[string]*listenerTLS
}

// route is a compiled route.
type route struct {
	rules    []*Rule
	clusters map[string]*upstream.Cluster // what it was compiled against
}

// NewCompiler returns a Compiler for the given filters.
func NewCompiler(set *filters.Set, t *telemetry.Telemetry) *Compiler {
	return &Compiler{filters: set, telemetry: t, tickets: &ticketKeys{listeners: map[string]*rotation{}}}
}

// Compile makes a Snapshot that owns the lease. On an error the caller still owns it.
func (c *Compiler) Compile(cfg *config.Config, lease *upstream.Lease) (*Snapshot, error) {
	next := &Snapshot{Config: cfg, lease: lease, binds: map[string]*bind{}}
	next.refs.Store(1)
	build := &build{
		Compiler: c, lease: lease,
		routes: make(map[*config.Route]*route, len(c.routes)), listeners: make(map[string]*Listener, len(cfg.Listeners)),
		tls: make(map[string]*listenerTLS, len(c.tls)), certificates: map[string]*config.Certificate{},
		clusters: make(map[string]*config.Cluster, len(cfg.Clusters)),
	}
	for _, cluster := range cfg.Clusters {
		build.clusters[cluster.Name] = cluster
	}
	for _, cert := range cfg.Certificates {
		build.certificates[cert.Name] = cert
	}
	var problems []error
	for _, l := range cfg.Listeners {
		compiled, err := build.listener(l)
		if err != nil {
			problems = append(problems, fmt.Errorf("listener %s: %w", l.Name, err))
			continue
		}
		problems = append(problems, next.add(compiled))
	}
	if err := errors.Join(problems...); err != nil {
		if len(build.tracers) > 0 {
			c.LetGo(build.tracers)
		}
		return nil, err
	}
	next.giveWay()
	next.tracers, next.letGo = build.tracers, c.LetGo
	c.routes, c.listeners, c.tls = build.routes, build.listeners, build.tls
	c.tickets.keep(build.tls)
	return next, nil
}

// add puts a listener on its sockets.
func (s *Snapshot) add(l *Listener) error {
	for _, addr := range l.Config.Binds() {
		key, kind := l.Config.BindKey(addr), kindOf(l.Config)
		b := s.binds[key]
		if b == nil {
			b = &bind{socket: downstream.Bind{Addr: addr, Port: l.Config.Port, Kind: kind}}
			s.binds[key] = b
		}
		if b.socket.Kind != kind {
			return fmt.Errorf("listener %s: %s has listeners of another kind; HTTP, TCP and TLS do not go together", l.Config.Name, key)
		}
		hostname := hostnameOf(l.Config)
		if other, taken := b.listeners.Get(hostname); taken {
			return fmt.Errorf("listener %s: listener %s has the same address and hostname", l.Config.Name, other.Config.Name)
		}
		b.listeners.Set(hostname, l)
		b.socket.HTTP3 = b.socket.HTTP3 || l.Config.Protocol == config.HTTPS
		b.socket.Passthrough = b.socket.Passthrough || passes(l.Config)
	}
	return nil
}

// Sweep lets telemetry forget the routes that the last Snapshot no longer has. Call it when that one has taken over.
func (c *Compiler) Sweep() {
	c.sweepFlows()
	c.telemetry.Sweep(func(yield func(*telemetry.Handles) bool) {
		for _, r := range c.routes {
			for _, rule := range r.rules {
				if !yield(rule.Handles) {
					return
				}
				for i := range rule.Backends {
					if !yield(rule.Backends[i].Handles) {
						return
					}
				}
			}
		}
	})
}

// build is one run of Compile.
type build struct {
	*Compiler
	lease        *upstream.Lease
	routes       map[*config.Route]*route
	listeners    map[string]*Listener
	tls          map[string]*listenerTLS
	certificates map[string]*config.Certificate
	clusters     map[string]*config.Cluster
	tracers      []*telemetry.Tracer
}

func (b *build) listener(l *config.Listener) (*Listener, error) {
	compiled := &Listener{Config: l}
	before := b.Compiler.listeners[l.Name]
	if l.TLS != nil {
		conf, err := b.listenerTLS(l)
		if err != nil {
			return nil, err
		}
		compiled.tls = conf
	}
	if l.Tracing != nil && b.Tracer != nil {
		var err error
		if compiled.Tracer, err = b.Tracer(l.Tracing, b.clusters[l.Tracing.Cluster]); err != nil {
			return nil, err
		}
		b.tracers = append(b.tracers, compiled.Tracer)
	}
	if l.Protocol != config.HTTP && l.Protocol != config.HTTPS {
		compiled.streams = b.streams(l)
		b.listeners[l.Name] = compiled
		return compiled, nil
	}
	if len(l.Filters) > 0 {
		items, err := b.items(l.Filters, map[string]*upstream.Cluster{})
		if err == nil {
			compiled.Chain, err = b.filters.CompileInOrder(items)
		}
		if err != nil {
			return nil, err
		}
	}
	same := before != nil && before.table != nil && before.Config.Hostname == l.Hostname && slices.Equal(before.Config.Routes, l.Routes)
	for _, r := range l.Routes {
		unchanged, err := b.route(r)
		if err != nil {
			return nil, err
		}
		same = same && unchanged
	}
	if same {
		compiled.table = before.table
	} else if err := b.table(compiled, before); err != nil {
		return nil, err
	}
	b.listeners[l.Name] = compiled
	return compiled, nil
}

// table compiles the rules of a listener's routes, which are in order of precedence.
func (b *build) table(l *Listener, before *Listener) error {
	var rules []routing.Rule[*Rule]
	for _, r := range l.Config.Routes {
		hosts := servedHosts(l.Config.Hostname, r.Hostnames)
		if len(hosts) == 0 {
			continue
		}
		for _, rule := range b.routes[r].rules {
			for _, match := range rule.Config.Matches {
				rules = append(rules, routing.Rule[*Rule]{Hosts: hosts, Match: match, Value: rule})
			}
			if len(rule.Config.Matches) == 0 {
				rules = append(rules, routing.Rule[*Rule]{Hosts: hosts, Value: rule})
			}
		}
	}
	var previous *routing.Table[*Rule]
	if before != nil {
		previous = before.table
	}
	table, err := previous.Recompile(rules)
	l.table = table
	return err
}

// servedHosts are those of a route's hostnames that the listener serves at least in part, as the route has them: a table is asked only about
// hosts that its listener serves, and the precedence of hostnames is that of the route's own (HTTPRouteSpec.Hostnames).
func servedHosts(listener string, hostnames []string) []string {
	if len(hostnames) == 0 {
		return []string{""}
	}
	var hosts []string
	for _, h := range hostnames {
		if _, ok := routing.Intersect(listener, h); ok {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// route compiles a route once per build, however many listeners it is attached to. unchanged says that it is the previous build's.
func (b *build) route(r *config.Route) (unchanged bool, err error) {
	before := b.Compiler.routes[r]
	if done, ok := b.routes[r]; ok {
		return done == before, nil
	}
	if before != nil && b.current(before) {
		b.routes[r] = before
		return true, nil
	}
	compiled := &route{clusters: map[string]*upstream.Cluster{}}
	for _, rule := range r.Rules {
		out, err := b.rule(r, rule, compiled.clusters)
		if err != nil {
			return false, fmt.Errorf("%s rule %s: %w", r.Origin, rule.Name, err)
		}
		compiled.rules = append(compiled.rules, out)
	}
	b.routes[r] = compiled
	return false, nil
}

// current reports whether the clusters that a route was compiled against are still the live ones.
func (b *build) current(r *route) bool {
	for name, c := range r.clusters {
		if b.lease.Cluster(name) != c {
			return false
		}
	}
	return true
}

func (b *build) rule(r *config.Route, rule *config.Rule, clusters map[string]*upstream.Cluster) (*Rule, error) {
	out := &Rule{
		Ref:    &exchange.RouteRef{Route: r.Origin.String(), Rule: rule.Name},
		Route:  r,
		Config: rule,

		RequestTimeout: rule.RequestTimeout,
		BackendTimeout: rule.BackendTimeout,
		Retry:          rule.Retry,
	}
	slots := &filters.Builder{} // shared: the rule's chain and one backend's run in the same exchange
	var err error
	if out.Chain, err = b.chain(rule.Filters, slots, clusters); err != nil {
		return nil, err
	}
	if rule.Persistence != nil {
		if out.Session, err = upstream.NewSession(rule.Persistence); err != nil {
			return nil, err
		}
	}
	out.Handles = b.telemetry.Handles(out.Ref, "")
	for i, backend := range rule.Backends {
		if backend.Weight == 0 {
			continue
		}
		compiled := Backend{Name: backend.Cluster, Invalid: backend.Invalid}
		if compiled.Chain, err = b.chain(backend.Filters, slots, clusters); err != nil {
			return nil, fmt.Errorf("backend %d: %w", i, err)
		}
		if backend.Invalid == "" {
			compiled.Cluster = b.lease.Cluster(backend.Cluster)
			clusters[backend.Cluster] = compiled.Cluster
		}
		compiled.Handles = b.telemetry.Handles(out.Ref, backend.Cluster)
		out.TotalWeight += uint64(backend.Weight)
		compiled.upTo = out.TotalWeight
		out.Backends = append(out.Backends, compiled)
	}
	return out, nil
}

// chain compiles the filters of a rule or backend. The clusters that they send requests to go into clusters.
func (b *build) chain(policies []config.Policy, slots *filters.Builder, clusters map[string]*upstream.Cluster) (filters.Chain, error) {
	items, err := b.items(policies, clusters)
	if len(items) == 0 || err != nil {
		return filters.Chain{}, err
	}
	return b.filters.Compile(items, slots)
}

func (b *build) items(policies []config.Policy, clusters map[string]*upstream.Cluster) ([]filters.Item, error) {
	var items []filters.Item
	for _, p := range policies {
		for _, name := range b.filters.Clusters(p.Kind, p.Payload) {
			live := b.lease.Cluster(name)
			if live == nil {
				return nil, fmt.Errorf("filter %s: there is no cluster %s", p.Kind, name)
			}
			clusters[name] = live
		}
		items = append(items, filters.Item{Kind: p.Kind, Payload: p.Payload})
	}
	return items, nil
}
