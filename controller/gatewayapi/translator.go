// Package gatewayapi translates Gateway API objects into a plan.Plan. It reads one immutable source.State and nothing else: no I/O,
// no clock. The same State gives the same Plan, byte for byte.
//
// Objects go through four stages, each of which keeps what the State says did not change:
//
//	view     GatewayClass, Gateway, ListenerSet, Namespace, Secret -> listeners that serve, and who may attach     view.go, listener.go
//	targets  Service, XBackend, ConfigMap, EndpointSlice           -> clusters                                     target.go, service.go
//	routes   HTTPRoute, GRPCRoute, ... against targets and filters -> config.Route, config.StreamRoute             route.go, rule.go,
//	                                                                                                               grpc.go, stream.go
//	attach   routes against the view                               -> which route belongs to which listener        attach.go, web.go
//
// So one changed route among thousands costs the translation of that route and one pass over the memo of the others.
//
// Whatever cannot be used is set aside with a problem.Problem, and everything else goes on. Where dropping something would widen what
// a request may do (a filter that cannot be built, client certificates that would not be asked for), what stands behind it is closed
// instead: the rule answers 500, the listener does not open.
package gatewayapi

import (
	"crypto/rand"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
)

// DefaultControllerName is the GatewayClass.spec.controllerName that this gateway answers to.
const DefaultControllerName = "gatehouse.dev/controller"

// Options are what a Translator needs to know beside the objects.
type Options struct {
	// Filters checks every filter payload. It must hold the specs of the filters that this package writes (filters.go).
	Filters *filters.Set
	// ControllerName is "" for DefaultControllerName.
	ControllerName string
	// Standalone says that the objects come from a folder and the data plane runs in this process: Gateways share its sockets, and
	// loopback addresses and local names are destinations like any other. In a cluster they are refused, because whoever may create
	// a Service could otherwise reach into the gateway's own network namespace.
	Standalone bool
	// Seed is what the keys that seal sessions are derived from where objects have no UID, as in a folder. Default: random bytes, with which
	// sessions end with the process. It is kept secret.
	Seed []byte
}

// Translator makes Plans. It remembers the last State so that what did not change is not translated again, and what came out of it
// stays the same pointer. It is for one goroutine.
type Translator struct {
	opts Options

	run       uint64
	revisions revisions
	view      *view
	certs     map[types.NamespacedName]*certificate
	grants    grants
	slices    endpointIndex
	targets   map[targetKey]*target
	routes    map[routeKey]*route
	// order is routes by precedence.
	order []*route
	// lost are the listeners that routes must leave to others, webTouched is set when that is to be found anew (web.go).
	lost       displaced
	webTouched bool
	last       *plan.Plan

	bundles         map[bundleKey]*bundle
	tlsPolicies     tlsPolicies
	trafficPolicies trafficPolicies
	pods            podIndex
}

// New returns a Translator.
func New(o Options) *Translator {
	if o.ControllerName == "" {
		o.ControllerName = DefaultControllerName
	}
	if len(o.Seed) == 0 {
		o.Seed = make([]byte, 32)
		_, _ = rand.Read(o.Seed) // never fails (crypto/rand)
	}
	return &Translator{
		opts:    o,
		bundles: make(map[bundleKey]*bundle),
		certs:   make(map[types.NamespacedName]*certificate),
		targets: make(map[targetKey]*target),
		routes:  make(map[routeKey]*route),
	}
}

// Translate returns the Plan for a State. It never changes st. Problems are those found here; st.Problems are not repeated.
func (t *Translator) Translate(st *source.State) *plan.Plan {
	t.run++
	r := &pass{Translator: t, st: st, changed: t.revisions.update(st), b: plan.NewBuilder(t.last)}
	if r.changed.any(referenceGrants) {
		t.grants = newGrants(st)
	}
	if r.changed.any(endpointSlices) {
		t.slices = newEndpointIndex(st)
	}
	if r.changed.any(pods) {
		t.pods.renew(st)
	}
	r.buildTLSPolicies()
	r.buildTrafficPolicies()
	r.buildView()
	r.buildRoutes()
	r.assemble()
	t.last = r.b.Plan()
	return t.last
}

// pass is one call of Translate.
type pass struct {
	*Translator
	st      *source.State
	changed changes
	b       *plan.Builder
	// wants is where want writes to, nil for the Plan itself.
	wants *[]config.Origin
	leads leads
	// tracing is by Gateway what XTelemetryPolicies say.
	tracing map[*gateway]tracing
}

// assemble puts together what the stages made, in the order of precedence.
func (p *pass) assemble() {
	used := 0
	p.leads = p.newLeads()
	p.buildTelemetry()
	for i := range p.view.uses {
		p.leadFrom(p.view.uses[i].gateway, p.view.uses[i].got.target)
	}
	for _, l := range p.view.listeners {
		l.attached, l.built = 0, nil
		if l.serves() {
			l.built = p.b.Listener(l.config)
			used += p.useListenerClusters(l)
		}
	}
	lost := p.displace()
	wanting := p.wanting()
	for _, rt := range p.order {
		serves := false
		rt.joined = rt.joined[:0]
		for _, l := range rt.attached {
			if lost[rt][l] != nil {
				continue
			}
			serves = p.join(rt, l) || serves
			p.leads.route(rt, l)
			if rt.accepted {
				l.attached++
			}
		}
		if serves {
			used += p.useClusters(rt.targets, rt.joined)
		}
		rt.forgetVariants()
		if wanting {
			p.useWants(rt)
		}
		p.report(rt.problems)
		p.report(rt.attachProblems)
	}
	p.reportTLSPolicies()
	p.reportTrafficPolicies()
	p.reportXBackends()
	p.forgetTargets(used)
	p.forgetBundles()
	p.assembleView()
	for _, rt := range p.order {
		outcomes, problems := lost.outcomes(rt)
		p.b.Outcome(outcomes...)
		p.report(problems)
	}
}

// join adds the route to what is built of a listener and reports whether there was something to add. A route that is not accepted may
// still have rules: those that answer 500 in place of what they cannot do.
func (p *pass) join(rt *route, l *listener) bool {
	if l.built == nil {
		return false
	}
	v := l.variant()
	if v != (variant{}) || len(rt.streams) > 0 {
		p.renewTargets(rt.targets)
	}
	route, streams := rt.in(v)
	switch {
	case route != nil && len(route.Rules) > 0:
		l.built.Routes = append(l.built.Routes, route)
	case len(streams) > 0:
		l.built.Streams = append(l.built.Streams, streams...)
	default:
		return false
	}
	if !slices.Contains(rt.joined, v) {
		rt.joined = append(rt.joined, v)
	}
	return true
}

// wanting reports whether any target names Secrets or ConfigMaps.
func (p *pass) wanting() bool {
	for _, t := range p.targets {
		if len(t.wants) > 0 {
			return true
		}
	}
	return false
}

// useWants adds what the targets of a route want, those too that cannot be used for want of it.
func (p *pass) useWants(rt *route) {
	for i := range rt.uses {
		p.useTargetWants(rt.uses[i].got.target)
	}
}

func (p *pass) useTargetWants(key targetKey) {
	if t := p.targets[key]; t != nil {
		p.refresh(t)
		p.planWants(t.wants)
	}
}

// assembleView adds what the view holds beside listeners, whose outcomes count their routes.
func (p *pass) assembleView() {
	p.b.Outcome(p.view.outcomes...)
	p.planWants(p.view.wants)
	for i := range p.view.uses {
		p.useTargetWants(p.view.uses[i].got.target)
	}
	for _, g := range p.view.planned {
		p.b.Gateway(g)
	}
	for _, l := range p.view.listeners {
		p.b.Outcome(l.outcome())
		if l.built != nil {
			for _, cert := range l.certificates {
				p.b.Certificate(cert)
			}
		}
	}
	p.report(p.view.problems)
}

// useListenerClusters adds the clusters that the listener itself leads to, by its filters and its tracing.
func (p *pass) useListenerClusters(l *listener) (added int) {
	v := variant{certificate: l.variant().certificate}
	added = p.useClusters(l.targets, []variant{v})
	if v != (variant{}) {
		if names, _ := renames(l.targets, v); names != nil {
			l.built.Filters = renamePolicies(l.built.Filters, names)
		}
	}
	l.built.Tracing = p.traced(l, v)
	return added
}

// useClusters adds the clusters of targets that something that serves leads to, as they are in the variants, and returns how many were new.
func (p *pass) useClusters(targets []*target, variants []variant) (added int) {
	p.renewTargets(targets)
	for _, t := range targets {
		if t.reason != "" {
			continue
		}
		for _, v := range variants {
			added += p.useIn(t, v)
		}
	}
	return added
}

// renewTargets brings targets up to date.
func (p *pass) renewTargets(targets []*target) {
	for i, t := range targets {
		if t.forgotten {
			t = p.target(t.key)
			targets[i] = t
		}
		p.refresh(t)
	}
}

// report adds problems completed with their place in the files, which may have moved since they were found.
func (p *pass) report(list []problem.Problem) {
	for _, one := range list {
		p.b.Problem(p.st.Problem(one))
	}
}

// origin names an object or, with rule, a part of it.
func (p *pass) origin(kind, namespace, name string, generation int64, rule string) config.Origin {
	at := p.place(kind, namespace, name)
	return config.Origin{Kind: kind, Namespace: namespace, Name: name, Generation: generation, Rule: rule, File: at.file, Line: at.line}
}

// place is where an object stands, comparable.
type place struct {
	file string
	line int
}

func (p *pass) place(kind, namespace, name string) place {
	if len(p.st.Where) == 0 {
		return place{}
	}
	where := p.st.Where[source.Ref{Kind: kind, Namespace: namespace, Name: name}]
	return place{where.File, where.Line}
}

// sortedKeys returns the names of objects, sorted by namespace and name.
func sortedKeys[T any](objects source.Objects[T]) []types.NamespacedName {
	keys := make([]types.NamespacedName, 0, len(objects))
	for key := range objects {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareNames)
	return keys
}
