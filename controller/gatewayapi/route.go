package gatewayapi

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/routing"
)

// route is one HTTPRoute, translated (the first half), and where it attaches (the second).
type route struct {
	key types.NamespacedName
	obj *gatewayv1.HTTPRoute
	at  place
	// next is the object in the State of this pass, seen the pass.
	next *gatewayv1.HTTPRoute
	seen uint64

	config *config.Route
	// uses are the references that were followed: as long as they lead to the same, the route is the same.
	uses []backendUse
	// targets are those that the rules lead to, each once.
	targets  []*target
	problems []problem.Problem
	// accepted is whether at least one rule does what it says.
	accepted bool
	// invalid says which rules do not, for the condition PartiallyInvalid.
	invalid  string
	resolved plan.Condition

	view     *view
	attached []*listener
	// attachProblems belong to the parentRefs.
	attachProblems []problem.Problem
	outcomes       []plan.Outcome
}

type backendUse struct {
	ref gatewayv1.BackendObjectReference
	got resolution
}

// buildRoutes brings every route up to date.
func (p *pass) buildRoutes() {
	if p.changed.any(httpRoutes) {
		p.listRoutes()
	}
	targetsChanged := p.changed.any(services, xBackends, configMaps, referenceGrants)
	for _, rt := range p.order {
		at := p.place("HTTPRoute", rt.key.Namespace, rt.key.Name)
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
		}
	}
}

// listRoutes takes in new routes and drops deleted ones.
func (p *pass) listRoutes() {
	reorder := false
	for key, obj := range p.st.HTTPRoutes {
		rt := p.routes[key]
		switch {
		case rt == nil:
			rt = &route{key: key}
			p.routes[key] = rt
			p.Translator.order = append(p.order, rt)
			reorder = true
		case !rt.next.CreationTimestamp.Equal(&obj.CreationTimestamp):
			reorder = true
		}
		rt.next, rt.seen = obj, p.run
	}
	if len(p.order) > len(p.st.HTTPRoutes) {
		p.Translator.order = slices.DeleteFunc(p.order, func(rt *route) bool {
			if rt.seen != p.run {
				delete(p.routes, rt.key)
			}
			return rt.seen != p.run
		})
	}
	if reorder {
		slices.SortFunc(p.order, func(a, b *route) int {
			return plan.ByPrecedence(a.next.CreationTimestamp.Time, config.Origin{Namespace: a.key.Namespace, Name: a.key.Name},
				b.next.CreationTimestamp.Time, config.Origin{Namespace: b.key.Namespace, Name: b.key.Name})
		})
	}
}

// leadsElsewhere reports whether a reference of the route resolves differently than when it was translated.
func (p *pass) leadsElsewhere(rt *route) bool {
	return slices.ContainsFunc(rt.uses, func(use backendUse) bool { return p.resolve(rt.key.Namespace, use.ref) != use.got })
}

// translateRoute translates the object. A result equal to the one before keeps its pointer.
func (p *pass) translateRoute(rt *route) {
	obj := rt.obj
	b := &routeBuilder{
		pass: p, obj: obj,
		resolved: condition(gatewayv1.RouteConditionResolvedRefs, true, gatewayv1.RouteReasonResolvedRefs, ""),
	}
	made := &config.Route{
		Origin:  p.origin("HTTPRoute", obj.Namespace, obj.Name, obj.Generation, ""),
		Created: obj.CreationTimestamp.Time,
	}
	hostsOK := b.hostnames(made)
	rules := obj.Spec.Rules
	if len(rules) == 0 {
		// The schema's default: one rule for every request.
		rules = []gatewayv1.HTTPRouteRule{{}}
	}
	for i := range rules {
		if rule := b.rule(i, &rules[i]); rule != nil && hostsOK {
			made.Rules = append(made.Rules, rule)
		}
	}
	if scope := obj.Spec.UseDefaultGateways; scope != "" && scope != gatewayv1.GatewayDefaultScopeNone {
		b.problem("spec.useDefaultGateways", problem.UnsupportedValue, "the default Gateways",
			"this version has no default Gateways; name the Gateways in spec.parentRefs")
	}
	rt.accepted = hostsOK && len(b.bad) < len(rules)
	rt.uses, rt.targets, rt.problems, rt.resolved = b.uses, b.targets, b.problems, b.resolved
	rt.invalid = b.summary()
	if rt.config == nil || !reflect.DeepEqual(rt.config, made) {
		rt.config = made
	}
}

// relocate gives a route that only moved within its file a new Origin. Its rules stay the same pointers.
func (p *pass) relocate(rt *route) {
	moved := *rt.config
	moved.Origin = p.origin("HTTPRoute", rt.key.Namespace, rt.key.Name, rt.obj.Generation, "")
	rt.config = &moved
}

// routeBuilder collects what one translation of a route finds.
type routeBuilder struct {
	*pass
	obj      *gatewayv1.HTTPRoute
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

// hostnames reads spec.hostnames. One that is no hostname is set aside; a route that has hostnames and is left with none serves
// nothing, for no hostname at all would be every host.
func (b *routeBuilder) hostnames(made *config.Route) (ok bool) {
	for i, h := range b.obj.Spec.Hostnames {
		host := strings.ToLower(string(h))
		if err := routing.ValidateHost(host); err != nil || host == "" {
			b.problem(fmt.Sprintf("spec.hostnames[%d]", i), problem.UnsupportedValue, "the hostname", "%q is no hostname: %v", h, err)
			continue
		}
		if !slices.Contains(made.Hostnames, host) {
			made.Hostnames = append(made.Hostnames, host)
		}
	}
	return len(made.Hostnames) > 0 || len(b.obj.Spec.Hostnames) == 0
}

// resolve follows a reference and keeps what it leads to.
func (b *routeBuilder) resolve(field, setAside string, ref gatewayv1.BackendObjectReference) resolution {
	got := b.pass.resolve(b.obj.Namespace, ref)
	b.uses = append(b.uses, backendUse{ref, got})
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
	b.problems = append(b.problems, problem.Problem{Kind: "HTTPRoute", Namespace: b.obj.Namespace, Name: b.obj.Name, Field: field,
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

// resolution is what a backendRef leads to.
type resolution struct {
	target targetKey
	// reason and message say why it leads nowhere; reason is "" when target can be used.
	reason  problem.Reason
	message string
}

// The group of XBackend, and that of Gateway API.
const (
	experimentalGroup = "gateway.networking.x-k8s.io"
	gatewayGroup      = gatewayv1.GroupName
)

// resolve follows a backendRef of an HTTPRoute in a namespace. Whether it may be followed is asked before whether the object exists,
// so that nobody learns what other namespaces hold.
func (p *pass) resolve(namespace string, ref gatewayv1.BackendObjectReference) resolution {
	group, kind := "", "Service"
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	key := targetKey{kind: kind, namespace: namespace, name: string(ref.Name)}
	if ref.Namespace != nil {
		key.namespace = string(*ref.Namespace)
	}
	if ref.Port != nil {
		key.port = *ref.Port
	}
	isService := group == "" && kind == "Service"
	isBackend := group == experimentalGroup && kind == "XBackend"
	switch {
	case !isService && !isBackend:
		return resolution{reason: problem.InvalidKind, message: fmt.Sprintf("kind %q in group %q is no backend; name a Service or an XBackend",
			kind, group)}
	case !p.grants.permits(reference{gatewayGroup, "HTTPRoute", namespace, group, kind, key.namespace, key.name}):
		return resolution{reason: problem.RefNotPermitted, message: fmt.Sprintf("no ReferenceGrant in namespace %s lets HTTPRoutes of "+
			"namespace %s refer to %s %s; create one there", key.namespace, namespace, kind, key.name)}
	case isService && (key.port < 1 || key.port > 65535):
		return resolution{reason: problem.BackendNotFound, message: fmt.Sprintf("the reference to Service %s/%s has no port; set port",
			key.namespace, key.name)}
	case isBackend && key.port == 0:
		if obj := p.st.XBackends[types.NamespacedName{Namespace: key.namespace, Name: key.name}]; obj != nil {
			key.port = int32(obj.Spec.Port.Number)
		}
	}
	if t := p.target(key); t.reason != "" {
		return resolution{reason: t.reason, message: t.message}
	}
	return resolution{target: key}
}
