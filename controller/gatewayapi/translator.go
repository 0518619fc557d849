// Package gatewayapi translates Gateway API objects into a plan.Plan. It reads one immutable source.State and nothing else: no I/O,
// no clock. The same State gives the same Plan, byte for byte.
//
// Objects go through four stages, each of which keeps what the State says did not change:
//
//	view     GatewayClass, Gateway, Namespace, Secret   -> listeners that serve, and who may attach to them    view.go, gateway.go
//	targets  Service, XBackend, ConfigMap, EndpointSlice -> clusters                                            target.go, service.go
//	routes   HTTPRoute against targets and filters       -> config.Route                                        route.go, rule.go
//	attach   HTTPRoute against the view                  -> which route belongs to which listener               attach.go
//
// So one changed route among thousands costs the translation of that route and one pass over the memo of the others.
//
// Whatever cannot be used is set aside with a problem.Problem, and everything else goes on. Where dropping something would widen what
// a request may do (a filter that cannot be built, client certificates that would not be asked for), what stands behind it is closed
// instead: the rule answers 500, the listener does not open.
package gatewayapi

import (
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
	routes    map[types.NamespacedName]*route
	// order is routes by precedence.
	order []*route
	last  *plan.Plan
}

// New returns a Translator.
func New(o Options) *Translator {
	if o.ControllerName == "" {
		o.ControllerName = DefaultControllerName
	}
	return &Translator{
		opts:    o,
		certs:   make(map[types.NamespacedName]*certificate),
		targets: make(map[targetKey]*target),
		routes:  make(map[types.NamespacedName]*route),
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
}

// assemble puts together what the stages made, in the order of precedence.
func (p *pass) assemble() {
	for _, l := range p.view.listeners {
		l.attached, l.built = 0, nil
		if l.serves() {
			l.built = p.b.Listener(l.config)
		}
	}
	used := 0
	for _, rt := range p.order {
		serves := false
		for _, l := range rt.attached {
			// A route that is not accepted may still have rules: those that answer 500 in place of what they cannot do.
			if l.built != nil && len(rt.config.Rules) > 0 {
				l.built.Routes = append(l.built.Routes, rt.config)
				serves = true
			}
			if rt.accepted {
				l.attached++
			}
		}
		if serves {
			used += p.useClusters(rt)
		}
		p.report(rt.problems)
		p.report(rt.attachProblems)
	}
	p.forgetTargets(used)
	p.assembleView()
	for _, rt := range p.order {
		p.b.Outcome(rt.outcomes...)
	}
}

// assembleView adds what the view holds beside listeners, whose outcomes count their routes.
func (p *pass) assembleView() {
	p.b.Outcome(p.view.outcomes...)
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

// useClusters adds the clusters of a route that serves and returns how many were new.
func (p *pass) useClusters(rt *route) (added int) {
	for i, t := range rt.targets {
		if t.forgotten {
			t = p.target(t.key)
			rt.targets[i] = t
		}
		p.refresh(t)
		if t.used == p.run || t.reason != "" {
			continue
		}
		t.used = p.run
		added++
		p.b.Cluster(p.live(t))
		p.report(t.endpointProblems)
	}
	return added
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
