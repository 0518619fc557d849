package gatewayapi

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// attachment is a route under one parentRef, or under a default Gateway.
type attachment struct {
	// index is that of the parentRef, -1 for a default Gateway.
	index int
	// parent is the Gateway or ListenerSet, with the parentRef's sectionName as Rule.
	parent    config.Origin
	listeners []*listener
	// why is set when there are no listeners.
	why *refusal
}

// refusal says why a parentRef attaches to nothing.
type refusal struct {
	reason  problem.Reason
	message string
}

// parent is what a parentRef names: a Gateway or ListenerSet, with the listeners that it offers.
type parent struct {
	origin    config.Origin
	listeners []*listener
}

func (o *parent) String() string {
	return o.origin.Kind + " " + o.origin.Namespace + "/" + o.origin.Name
}

func (g *gateway) parent() *parent {
	return &parent{config.Origin{Kind: "Gateway", Namespace: g.obj.Namespace, Name: g.obj.Name}, g.listeners}
}

// attach finds the listeners of each parentRef and says so in outcomes. A listener that does not open still takes routes: whether it
// is in order is its own affair (Gateway API: ListenerStatus.attachedRoutes).
func (p *pass) attach(rt *route) {
	rt.view, rt.attached, rt.attachments, rt.attachProblems, rt.outcomes = p.view, nil, nil, nil, nil
	spec := routeSpec(rt.obj)
	for i, ref := range spec.ParentRefs {
		if o := p.parent(rt, i, ref); o != nil {
			p.attachTo(rt, i, o, ref)
		}
	}
	p.attachByDefault(rt, spec)
	for i := range rt.attachments {
		rt.outcomes = append(rt.outcomes, rt.outcome(&rt.attachments[i], rt.attachments[i].why))
	}
}

func (p *pass) attachTo(rt *route, i int, o *parent, ref gatewayv1.ParentReference) {
	listeners, why := p.listenersFor(rt, o, ref)
	if why != nil {
		rt.attachProblem(i, why.reason, why.message)
	}
	for _, l := range listeners {
		if !slices.Contains(rt.attached, l) {
			rt.attached = append(rt.attached, l)
		}
	}
	one := attachment{index: i, parent: o.origin, listeners: listeners, why: why}
	if ref.SectionName != nil {
		one.parent.Rule = string(*ref.SectionName)
	}
	rt.attachments = append(rt.attachments, one)
}

// attachByDefault attaches a route that asks for it to the default Gateways, as if it named them in parentRefs (GEP-3793). Those that it
// does name as a whole are attached already.
func (p *pass) attachByDefault(rt *route, spec *gatewayv1.CommonRouteSpec) {
	scope := spec.UseDefaultGateways
	if scope == "" || scope == gatewayv1.GatewayDefaultScopeNone {
		return
	}
	for _, g := range p.view.defaults {
		named := func(a attachment) bool {
			ref := spec.ParentRefs[a.index]
			return a.parent == g.parent().origin && ref.Port == nil
		}
		if g.obj.Spec.DefaultScope == scope && !slices.ContainsFunc(rt.attachments, func(a attachment) bool { return a.index >= 0 && named(a) }) {
			p.attachTo(rt, -1, g.parent(), gatewayv1.ParentReference{})
		}
	}
}

// isDefault reports whether routes can attach to the Gateway without naming it.
func (g *gateway) isDefault() bool {
	return g.obj.Spec.DefaultScope != "" && g.obj.Spec.DefaultScope != gatewayv1.GatewayDefaultScopeNone
}

// defaultCondition tells of it in the Gateway's status (GEP-3793).
func (g *gateway) defaultCondition() plan.Condition {
	return plan.Condition{Type: "DefaultGateway", Status: true, Reason: "DefaultScope",
		Message: fmt.Sprintf("Gateway has default scope %s", g.obj.Spec.DefaultScope)}
}

// parent returns what a parentRef names, or nil if it is none of this controller's. Gateways of other controllers are theirs to judge.
func (p *pass) parent(rt *route, i int, ref gatewayv1.ParentReference) *parent {
	kind := "Gateway"
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	key := types.NamespacedName{Namespace: rt.key.namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		key.Namespace = string(*ref.Namespace)
	}
	switch {
	case (ref.Group == nil || *ref.Group == gatewayGroup) && kind == "Gateway":
		return p.gatewayParent(rt, i, key)
	case (ref.Group == nil || *ref.Group == gatewayGroup) && kind == "ListenerSet":
		return p.setParentOf(rt, i, key)
	case p.opts.Standalone:
		// In a cluster another controller may serve it, a mesh for instance. A folder has no other.
		rt.attachProblem(i, problem.InvalidKind, "only a Gateway or ListenerSet can be the parent of a route; name one")
	}
	return nil
}

func (p *pass) gatewayParent(rt *route, i int, key types.NamespacedName) *parent {
	if g := p.view.gateways[key]; g != nil {
		return g.parent()
	}
	switch _, exists := p.st.Gateways[key]; {
	case p.view.foreign[key]:
	case exists:
		rt.attachProblem(i, problem.NoMatchingParent, fmt.Sprintf("Gateway %s is set aside because of its class; mend that first", key))
	default:
		rt.attachProblem(i, problem.NoMatchingParent, fmt.Sprintf("Gateway %s does not exist; create it or mend the name", key))
	}
	return nil
}

// setParentOf returns a ListenerSet as a parent. One that does not attach to its Gateway offers no listeners.
func (p *pass) setParentOf(rt *route, i int, key types.NamespacedName) *parent {
	if set := p.view.sets[key]; set != nil {
		return &parent{config.Origin{Kind: "ListenerSet", Namespace: key.Namespace, Name: key.Name}, set.listeners}
	}
	obj := p.st.ListenerSets[key]
	switch {
	case obj == nil:
		rt.attachProblem(i, problem.NoMatchingParent, fmt.Sprintf("ListenerSet %s does not exist; create it or mend the name", key))
	case p.opts.Standalone && !p.foreignSet(obj):
		rt.attachProblem(i, problem.NoMatchingParent, fmt.Sprintf("ListenerSet %s names no Gateway that is served; mend that first", key))
	}
	return nil
}

// foreignSet reports whether a ListenerSet names a Gateway of another controller.
func (p *pass) foreignSet(obj *gatewayv1.ListenerSet) bool {
	key := types.NamespacedName{Namespace: obj.Namespace, Name: string(obj.Spec.ParentRef.Name)}
	if ref := obj.Spec.ParentRef.Namespace; ref != nil && *ref != "" {
		key.Namespace = string(*ref)
	}
	return p.view.foreign[key]
}

// listenersFor returns the listeners that take the route: those that the parentRef selects, that allow it, and that share a hostname
// with it.
func (p *pass) listenersFor(rt *route, o *parent, ref gatewayv1.ParentReference) ([]*listener, *refusal) {
	var selected, allowed, attached []*listener
	for _, l := range o.listeners {
		if (ref.SectionName != nil && *ref.SectionName != "" && *ref.SectionName != l.spec.Name) || (ref.Port != nil && *ref.Port != l.spec.Port) {
			continue
		}
		selected = append(selected, l)
		if !slices.Contains(l.kinds, rt.key.kind) || !l.admits(rt.key.namespace, p.st) {
			continue
		}
		allowed = append(allowed, l)
		if plan.Intersects(l.config.Hostname, rt.hostnames) {
			attached = append(attached, l)
		}
	}
	switch {
	case len(o.listeners) == 0:
		return nil, &refusal{problem.NoMatchingParent, fmt.Sprintf("%s is not attached to a Gateway; mend that first", o)}
	case len(selected) == 0:
		return nil, &refusal{problem.NoMatchingParent, fmt.Sprintf("%s has no listener with %s; mend sectionName or port", o, describeRef(ref))}
	case len(allowed) == 0:
		return nil, &refusal{problem.NotAllowedByListeners, fmt.Sprintf("no listener of %s that the reference selects allows "+
			"%ss of namespace %s; widen the listener's allowedRoutes", o, rt.key.kind, rt.key.namespace)}
	case len(attached) == 0:
		return nil, &refusal{problem.NoMatchingListenerHostname, fmt.Sprintf("no hostname of the route is one of a listener of %s "+
			"(%s); change spec.hostnames or the listener's hostname", o, describeHostnames(allowed))}
	}
	return attached, nil
}

func describeRef(ref gatewayv1.ParentReference) string {
	s := ""
	if ref.SectionName != nil {
		s = fmt.Sprintf("name %q", *ref.SectionName)
	}
	if ref.Port != nil {
		if s != "" {
			s += " and "
		}
		s += fmt.Sprintf("port %d", *ref.Port)
	}
	if s == "" {
		return "any name"
	}
	return s
}

func describeHostnames(list []*listener) string {
	s := ""
	for i, l := range list {
		if i == 3 {
			return s + ", ..."
		}
		if i > 0 {
			s += ", "
		}
		s += l.config.Hostname
	}
	return s
}

// outcome is what became of a route under one parent. why is set when it attaches to none of its listeners.
func (rt *route) outcome(a *attachment, why *refusal) plan.Outcome {
	accepted := condition(gatewayv1.RouteConditionAccepted, true, gatewayv1.RouteReasonAccepted, "")
	switch {
	case why != nil:
		accepted = condition(gatewayv1.RouteConditionAccepted, false, why.reason, why.message)
	case !rt.accepted:
		message := rt.invalid
		if message == "" {
			message = "none of spec.hostnames is a hostname"
		}
		accepted = condition(gatewayv1.RouteConditionAccepted, false, gatewayv1.RouteReasonUnsupportedValue, message)
	}
	conditions := []plan.Condition{accepted, rt.resolved}
	// Only beside Accepted, and only when true (Gateway API: RouteConditionPartiallyInvalid).
	if accepted.Status && rt.invalid != "" {
		conditions = append(conditions, condition(gatewayv1.RouteConditionPartiallyInvalid, true, gatewayv1.RouteReasonUnsupportedValue,
			rt.invalid))
	}
	return plan.Outcome{Object: rt.origin(), Parent: a.parent, Conditions: conditions, AttachedRoutes: -1, ParentRef: a.index}
}

// origin is the route's, as what it became has it.
func (rt *route) origin() config.Origin {
	return config.Origin{Kind: rt.key.kind, Namespace: rt.key.namespace, Name: rt.key.name, Generation: rt.obj.GetGeneration(),
		File: rt.at.file, Line: rt.at.line}
}

// attachProblem says what is wrong with a parentRef, or with attaching by default when i is -1.
func (rt *route) attachProblem(i int, reason problem.Reason, message string) {
	field, setAside := fmt.Sprintf("spec.parentRefs[%d]", i), fmt.Sprintf("parentRef %d", i)
	if i < 0 {
		field, setAside = "spec.useDefaultGateways", "the default Gateway"
	}
	rt.attachProblems = append(rt.attachProblems, problem.Problem{Kind: rt.key.kind, Namespace: rt.key.namespace, Name: rt.key.name,
		Field: field, Reason: reason, Message: message, SetAside: setAside})
}
