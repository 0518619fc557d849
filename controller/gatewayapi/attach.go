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

// attach finds the listeners of each parentRef and says so in outcomes. A listener that does not open still takes routes: whether it
// is in order is its own affair (Gateway API: ListenerStatus.attachedRoutes).
func (p *pass) attach(rt *route) {
	rt.view, rt.attached, rt.attachProblems, rt.outcomes = p.view, nil, nil, nil
	for i, ref := range rt.obj.Spec.ParentRefs {
		g := p.parent(rt, i, ref)
		if g == nil {
			continue
		}
		listeners, why := p.listenersFor(rt, g, ref)
		if why != nil {
			rt.attachProblem(i, why.reason, why.message)
		}
		for _, l := range listeners {
			if !slices.Contains(rt.attached, l) {
				rt.attached = append(rt.attached, l)
			}
		}
		rt.outcomes = append(rt.outcomes, p.routeOutcome(rt, i, ref, g, why))
	}
}

// parent returns the Gateway of a parentRef, or nil if it is none of this controller's. Gateways of other controllers are theirs to
// judge.
func (p *pass) parent(rt *route, i int, ref gatewayv1.ParentReference) *gateway {
	if (ref.Group != nil && *ref.Group != gatewayGroup) || (ref.Kind != nil && *ref.Kind != "Gateway") {
		// In a cluster another controller may serve it, a mesh for instance. A folder has no other.
		if p.opts.Standalone {
			rt.attachProblem(i, problem.InvalidKind, "only a Gateway can be the parent of a route; name one")
		}
		return nil
	}
	key := types.NamespacedName{Namespace: rt.key.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		key.Namespace = string(*ref.Namespace)
	}
	g := p.view.gateways[key]
	switch _, exists := p.st.Gateways[key]; {
	case g != nil || p.view.foreign[key]:
	case exists:
		rt.attachProblem(i, problem.NoMatchingParent, fmt.Sprintf("Gateway %s is set aside because of its class; mend that first", key))
	default:
		rt.attachProblem(i, problem.NoMatchingParent, fmt.Sprintf("Gateway %s does not exist; create it or mend the name", key))
	}
	return g
}

// refusal says why a parentRef attaches to nothing.
type refusal struct {
	reason  problem.Reason
	message string
}

// listenersFor returns the listeners that take the route: those that the parentRef selects, that allow it, and that share a hostname
// with it.
func (p *pass) listenersFor(rt *route, g *gateway, ref gatewayv1.ParentReference) ([]*listener, *refusal) {
	var selected, allowed, attached []*listener
	for _, l := range g.listeners {
		if (ref.SectionName != nil && *ref.SectionName != "" && *ref.SectionName != l.spec.Name) || (ref.Port != nil && *ref.Port != l.spec.Port) {
			continue
		}
		selected = append(selected, l)
		if !slices.Contains(l.kinds, "HTTPRoute") || !l.admits(rt.key.Namespace, p.st) {
			continue
		}
		allowed = append(allowed, l)
		if plan.Intersects(l.config.Hostname, rt.config.Hostnames) {
			attached = append(attached, l)
		}
	}
	name := g.obj.Namespace + "/" + g.obj.Name
	switch {
	case len(selected) == 0:
		return nil, &refusal{problem.NoMatchingParent, fmt.Sprintf("Gateway %s has no listener with %s; mend sectionName or port", name,
			describeRef(ref))}
	case len(allowed) == 0:
		return nil, &refusal{problem.NotAllowedByListeners, fmt.Sprintf("no listener of Gateway %s that the reference selects allows "+
			"HTTPRoutes of namespace %s; widen the listener's allowedRoutes", name, rt.key.Namespace)}
	case len(attached) == 0:
		return nil, &refusal{problem.NoMatchingListenerHostname, fmt.Sprintf("no hostname of the route is one of a listener of Gateway %s "+
			"(%s); change spec.hostnames or the listener's hostname", name, describeHostnames(allowed))}
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

// routeOutcome is what became of a route under one parentRef.
func (p *pass) routeOutcome(rt *route, i int, ref gatewayv1.ParentReference, g *gateway, why *refusal) plan.Outcome {
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
	parent := config.Origin{Kind: "Gateway", Namespace: g.obj.Namespace, Name: g.obj.Name}
	if ref.SectionName != nil {
		parent.Rule = string(*ref.SectionName)
	}
	return plan.Outcome{Object: rt.config.Origin, Parent: parent, Conditions: conditions, AttachedRoutes: -1, ParentRef: i}
}

func (rt *route) attachProblem(i int, reason problem.Reason, message string) {
	rt.attachProblems = append(rt.attachProblems, problem.Problem{Kind: "HTTPRoute", Namespace: rt.key.Namespace, Name: rt.key.Name,
		Field: fmt.Sprintf("spec.parentRefs[%d]", i), Reason: reason, Message: message, SetAside: fmt.Sprintf("parentRef %d", i)})
}
