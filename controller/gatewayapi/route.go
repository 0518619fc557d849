package gatewayapi

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/routing"
)

// routeKey names a route.
type routeKey struct{ kind, namespace, name string }

// route is one route object, translated (the first half), and where it attaches (the second).
type route struct {
	key routeKey
	obj metav1.Object
	at  place
	// next is the object in the State of this pass, seen the pass.
	next metav1.Object
	seen uint64

	// config is what an HTTPRoute or GRPCRoute became, streams what a TLSRoute, TCPRoute or UDPRoute did.
	config  *config.Route
	streams []*config.StreamRoute
	// hostnames are lower case; none means every one of the listener.
	hostnames []string
	// claimed are the hostnames, or "" for every one; above are the wildcards that cover one of them. See web.go.
	claimed, above []string
	// uses are the references that were followed: as long as they lead to the same, the route is the same.
	uses []backendUse
	// targets are those that the rules lead to, each once.
	targets []*target
	// variants are its copies for listeners that reach clusters in another way, joined the variants that it has in this pass.
	variants map[variant]*variantRoute
	joined   []variant
	problems []problem.Problem
	// accepted is whether at least one rule does what it says.
	accepted bool
	// invalid says which rules do not, for the condition PartiallyInvalid.
	invalid  string
	resolved plan.Condition

	view *view
	// attached are the listeners of all attachments, each once.
	attached    []*listener
	attachments []attachment
	// attachProblems belong to the parentRefs.
	attachProblems []problem.Problem
	outcomes       []plan.Outcome
}

type backendUse struct {
	ref     gatewayv1.BackendObjectReference
	carries carries
	got     resolution
}

// origin names the route; rule is not set.
func (p *pass) routeOrigin(rt *route) config.Origin {
	return p.origin(rt.key.kind, rt.key.namespace, rt.key.name, rt.obj.GetGeneration(), "")
}

// routeSpec returns what routes of all kinds have in common.
func routeSpec(obj metav1.Object) *gatewayv1.CommonRouteSpec {
	switch o := obj.(type) {
	case *gatewayv1.HTTPRoute:
		return &o.Spec.CommonRouteSpec
	case *gatewayv1.GRPCRoute:
		return &o.Spec.CommonRouteSpec
	case *gatewayv1.TLSRoute:
		return &o.Spec.CommonRouteSpec
	case *gatewayv1.TCPRoute:
		return &o.Spec.CommonRouteSpec
	case *gatewayv1.UDPRoute:
		return &o.Spec.CommonRouteSpec
	}
	return &gatewayv1.CommonRouteSpec{}
}

// buildRoutes brings every route up to date.
func (p *pass) buildRoutes() {
	p.listRoutes()
	targetsChanged := p.changed.any(services, xBackends, configMaps, referenceGrants, pods, secrets, backendTLSPolicies, clusterTrustBundles)
	for _, rt := range p.order {
		at := p.place(rt.key.kind, rt.key.namespace, rt.key.name)
		changed := rt.obj != rt.next || targetsChanged && p.leadsElsewhere(rt)
		moved := rt.at != at
		rt.obj, rt.at = rt.next, at
		switch {
		case changed:
			p.translateRoute(rt)
		case moved:
			p.relocate(rt)
		}
		if changed || moved || rt.view != p.view {
			p.attach(rt)
			p.webTouched = true
		}
	}
}

// listRoutes takes in new routes and drops deleted ones.
func (p *pass) listRoutes() {
	reorder, gone := false, make(map[string]bool)
	list := func(k kind, objects func(yield func(types.NamespacedName, metav1.Object) bool)) {
		if !p.changed.any(k) {
			return
		}
		gone[string(k)] = true
		for name, obj := range objects {
			key := routeKey{string(k), name.Namespace, name.Name}
			rt := p.routes[key]
			switch {
			case rt == nil:
				rt = &route{key: key}
				p.routes[key] = rt
				p.Translator.order = append(p.order, rt)
				reorder = true
			case !created(rt.next).Equal(created(obj)):
				reorder = true
			}
			rt.next, rt.seen = obj, p.run
		}
	}
	list(httpRoutes, objectsOf(p.st.HTTPRoutes))
	list(grpcRoutes, objectsOf(p.st.GRPCRoutes))
	list(tlsRoutes, objectsOf(p.st.TLSRoutes))
	list(tcpRoutes, objectsOf(p.st.TCPRoutes))
	list(udpRoutes, objectsOf(p.st.UDPRoutes))
	if len(gone) > 0 {
		p.Translator.order = slices.DeleteFunc(p.order, func(rt *route) bool {
			dropped := gone[rt.key.kind] && rt.seen != p.run
			if dropped {
				p.webTouched = true
				delete(p.routes, rt.key)
			}
			return dropped
		})
	}
	if reorder {
		p.webTouched = true
		slices.SortFunc(p.order, compareRoutes)
	}
}

// objectsOf yields objects without their type.
func objectsOf[T metav1.Object](objects source.Objects[T]) func(yield func(types.NamespacedName, metav1.Object) bool) {
	return func(yield func(types.NamespacedName, metav1.Object) bool) {
		for key, obj := range objects {
			if !yield(key, obj) {
				return
			}
		}
	}
}

func created(obj metav1.Object) time.Time { return obj.GetCreationTimestamp().Time }

// compareRoutes orders by precedence; of two kinds under one name, it is the kind that decides.
func compareRoutes(a, b *route) int {
	return cmp.Or(plan.ByPrecedence(created(a.next), config.Origin{Namespace: a.key.namespace, Name: a.key.name},
		created(b.next), config.Origin{Namespace: b.key.namespace, Name: b.key.name}), cmp.Compare(a.key.kind, b.key.kind))
}

// leadsElsewhere reports whether a reference of the route resolves differently than when it was translated.
func (p *pass) leadsElsewhere(rt *route) bool {
	return slices.ContainsFunc(rt.uses, func(use backendUse) bool {
		return p.resolveFor(rt.key.kind, rt.key.namespace, use.ref, use.carries) != use.got
	})
}

// translateRoute translates the object. A result equal to the one before keeps its pointer.
func (p *pass) translateRoute(rt *route) {
	b := &routeBuilder{
		pass: p, key: rt.key,
		resolved: condition(gatewayv1.RouteConditionResolvedRefs, true, gatewayv1.RouteReasonResolvedRefs, ""),
	}
	origin := p.routeOrigin(rt)
	var rules int
	switch obj := rt.obj.(type) {
	case *gatewayv1.HTTPRoute:
		rules = b.webRoute(rt, origin, obj.Spec.Hostnames, len(obj.Spec.Rules), func(i int) *config.Rule {
			if len(obj.Spec.Rules) == 0 {
				return b.rule(i, &gatewayv1.HTTPRouteRule{})
			}
			return b.rule(i, &obj.Spec.Rules[i])
		})
	case *gatewayv1.GRPCRoute:
		rules = b.webRoute(rt, origin, obj.Spec.Hostnames, len(obj.Spec.Rules), func(i int) *config.Rule {
			if len(obj.Spec.Rules) == 0 {
				return b.grpcRule(i, &gatewayv1.GRPCRouteRule{})
			}
			return b.grpcRule(i, &obj.Spec.Rules[i])
		})
	default:
		rules = b.streamRoute(rt, origin)
	}
	rt.accepted = b.hostsOK && len(b.bad) < rules
	rt.hostnames, rt.claimed, rt.above = b.hosts, claimedHosts(b.hosts), wildcardsAbove(b.hosts)
	rt.uses, rt.targets, rt.problems, rt.resolved = b.uses, b.targets, b.problems, b.resolved
	rt.invalid = b.summary()
}

// webRoute translates an HTTPRoute or GRPCRoute and returns how many rules there were. Without any, the schema's default is one rule for
// every request.
func (b *routeBuilder) webRoute(rt *route, origin config.Origin, hostnames []gatewayv1.Hostname, rules int, rule func(i int) *config.Rule) int {
	b.readHostnames(hostnames)
	made := &config.Route{Origin: origin, Created: created(rt.obj), Hostnames: b.hosts}
	rules = max(rules, 1)
	for i := range rules {
		if one := rule(i); one != nil && b.hostsOK {
			made.Rules = append(made.Rules, one)
		}
	}
	if rt.config == nil || !reflect.DeepEqual(rt.config, made) {
		rt.config = made
	}
	return rules
}

// relocate gives a route that only moved within its file a new Origin. Its rules stay the same pointers.
func (p *pass) relocate(rt *route) {
	origin := p.routeOrigin(rt)
	if rt.config != nil {
		moved := *rt.config
		moved.Origin = origin
		rt.config = &moved
	}
	for i, stream := range rt.streams {
		moved := *stream
		moved.Origin = origin
		rt.streams[i] = &moved
	}
}

// routeBuilder collects what one translation of a route finds.
type routeBuilder struct {
	*pass
	key      routeKey
	hosts    []string
	hostsOK  bool
	uses     []backendUse
	targets  []*target
	problems []problem.Problem
	resolved plan.Condition
	bad      []badRule
}

type badRule struct {
	name    string
	message string
	// closed is whether its requests are answered 500 in place of going to other rules.
	closed bool
}

// readHostnames reads spec.hostnames. One that is no hostname is set aside; a route that has hostnames and is left with none serves
// nothing, for no hostname at all would be every host.
func (b *routeBuilder) readHostnames(list []gatewayv1.Hostname) {
	for i, h := range list {
		host := strings.ToLower(string(h))
		if err := routing.ValidateHost(host); err != nil || host == "" {
			b.problem(fmt.Sprintf("spec.hostnames[%d]", i), problem.UnsupportedValue, "the hostname", "%q is no hostname: %v", h, err)
			continue
		}
		if !slices.Contains(b.hosts, host) {
			b.hosts = append(b.hosts, host)
		}
	}
	b.hostsOK = len(b.hosts) > 0 || len(list) == 0
}

// resolve follows a reference and keeps what it leads to.
func (b *routeBuilder) resolve(field, setAside string, ref gatewayv1.BackendObjectReference) resolution {
	return b.resolveFor(field, setAside, ref, carriedBy(b.key.kind))
}

func (b *routeBuilder) resolveFor(field, setAside string, ref gatewayv1.BackendObjectReference, what carries) resolution {
	got := b.pass.resolveFor(b.key.kind, b.key.namespace, ref, what)
	b.uses = append(b.uses, backendUse{ref, what, got})
	if got.reason == "" {
		return got
	}
	b.problem(field, got.reason, setAside, "%s", got.message)
	b.unresolved(got.reason, field+": "+got.message)
	return got
}

// unresolved sets the condition ResolvedRefs, which tells of the first reference that leads nowhere.
func (b *routeBuilder) unresolved(reason problem.Reason, message string) {
	if b.resolved.Status {
		b.resolved = condition(gatewayv1.RouteConditionResolvedRefs, false, reason, message)
	}
}

// lead notes that a rule leads to a target.
func (b *routeBuilder) lead(key targetKey) {
	if t := b.pass.target(key); !slices.Contains(b.targets, t) {
		b.targets = append(b.targets, t)
	}
}

func (b *routeBuilder) problem(field string, reason problem.Reason, setAside, format string, args ...any) {
	b.problems = append(b.problems, problem.Problem{Kind: b.key.kind, Namespace: b.key.namespace, Name: b.key.name, Field: field,
		Reason: reason, Message: fmt.Sprintf(format, args...), SetAside: setAside})
}

// summary is the message of the condition PartiallyInvalid, whose beginning Gateway API prescribes.
func (b *routeBuilder) summary() string {
	if len(b.bad) == 0 {
		return ""
	}
	var names, messages []string
	for _, bad := range b.bad {
		name := bad.name
		if bad.closed {
			name += " (answers 500)"
		}
		names = append(names, name)
		messages = append(messages, bad.message)
	}
	return fmt.Sprintf("Dropped Rule %s: %s", strings.Join(names, ", "), strings.Join(messages, "; "))
}
