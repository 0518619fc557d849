package gatewayapi

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// listenerSet is a ListenerSet that names a Gateway of this controller.
type listenerSet struct {
	obj     *gatewayv1.ListenerSet
	origin  config.Origin
	created time.Time
	gateway *gateway
	// listeners are empty for a set that does not attach.
	listeners []*listener
	accepted  plan.Condition
}

// buildListenerSets adds the listeners of ListenerSets to those of their Gateways: the oldest sets first, then by namespace and name, which
// is the order in which they win conflicts (Gateway API: ListenerSetSpec.listeners).
func (p *pass) buildListenerSets(v *view) {
	keys := sortedKeys(p.st.ListenerSets)
	slices.SortStableFunc(keys, func(a, b types.NamespacedName) int {
		return p.st.ListenerSets[a].CreationTimestamp.Compare(p.st.ListenerSets[b].CreationTimestamp.Time)
	})
	for _, key := range keys {
		obj := p.st.ListenerSets[key]
		g := p.setParent(v, obj)
		if g == nil {
			continue
		}
		v.places[objectName{"ListenerSet", obj.Namespace, obj.Name}] = p.place("ListenerSet", obj.Namespace, obj.Name)
		set := &listenerSet{
			obj: obj, gateway: g, created: obj.CreationTimestamp.Time,
			origin:   p.origin("ListenerSet", obj.Namespace, obj.Name, obj.Generation, ""),
			accepted: condition(gatewayv1.ListenerSetConditionAccepted, true, gatewayv1.ListenerSetReasonAccepted, ""),
		}
		v.sets[key] = set
		v.setOrder = append(v.setOrder, set)
		if !p.admitsSet(v, g, obj) {
			set.refuse(v, "spec.parentRef", gatewayv1.ListenerSetReasonNotAllowed, fmt.Sprintf("Gateway %s/%s admits no ListenerSets of namespace "+
				"%s; widen its spec.allowedListeners", g.obj.Namespace, g.obj.Name, obj.Namespace))
			continue
		}
		for i := range obj.Spec.Listeners {
			spec := gatewayv1.Listener(obj.Spec.Listeners[i])
			l := p.buildListener(v, g, set, i, &spec)
			set.listeners = append(set.listeners, l)
			v.listeners = append(v.listeners, l)
		}
	}
}

// setParent returns the Gateway that a ListenerSet names, nil if it is none of this controller's.
func (p *pass) setParent(v *view, obj *gatewayv1.ListenerSet) *gateway {
	ref := obj.Spec.ParentRef
	aside := func(reason problem.Reason, format string, args ...any) {
		v.problem(problem.Problem{Kind: "ListenerSet", Namespace: obj.Namespace, Name: obj.Name, Field: "spec.parentRef", Reason: reason,
			Message: fmt.Sprintf(format, args...), SetAside: "the object"})
	}
	if (ref.Group != nil && *ref.Group != gatewayGroup) || (ref.Kind != nil && *ref.Kind != "Gateway") {
		if p.opts.Standalone {
			aside(problem.InvalidKind, "only a Gateway can be the parent of a ListenerSet; name one")
		}
		return nil
	}
	key := types.NamespacedName{Namespace: obj.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil && *ref.Namespace != "" {
		key.Namespace = string(*ref.Namespace)
	}
	g := v.gateways[key]
	switch _, exists := p.st.Gateways[key]; {
	case g != nil || v.foreign[key]:
	case exists:
		aside(problem.NoMatchingParent, "Gateway %s is set aside because of its class; mend that first", key)
	default:
		aside(problem.NoMatchingParent, "Gateway %s does not exist; create it or mend the name", key)
	}
	return g
}

// admitsSet reads the Gateway's allowedListeners, which by default admit no ListenerSet.
func (p *pass) admitsSet(v *view, g *gateway, obj *gatewayv1.ListenerSet) bool {
	allowed := g.obj.Spec.AllowedListeners
	if allowed == nil || allowed.Namespaces == nil || allowed.Namespaces.From == nil {
		return false
	}
	switch *allowed.Namespaces.From {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return obj.Namespace == g.obj.Namespace
	case gatewayv1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(allowed.Namespaces.Selector)
		if err != nil {
			v.problem(gatewayProblem(g.obj, "spec.allowedListeners.namespaces.selector", problem.UnsupportedValue, "all ListenerSets",
				"the selector does not parse, so it admits no namespace: %v", err))
			return false
		}
		return allowed.Namespaces.Selector != nil && selector.Matches(namespaceLabels(obj.Namespace, p.st))
	}
	return false
}

// judgeListenerSets decides which sets are accepted, once the conflicts of their listeners are settled. A set is accepted when its Gateway
// is, and one of its listeners serves. Unlike a Gateway's, a listener of a set that waits for its certificate counts as not valid: there
// is nothing else to say so in the conditions of the set, which has no ResolvedRefs.
func (v *view) judgeListenerSets() {
	for _, set := range v.setOrder {
		var invalid []string
		for _, l := range set.listeners {
			if !l.serves() {
				invalid = append(invalid, string(l.spec.Name))
			}
		}
		switch accepted, _ := set.gateway.judge(); {
		case !set.accepted.Status:
		case !accepted.Status:
			set.refuse(v, "spec.parentRef", gatewayv1.ListenerSetReasonParentNotAccepted, fmt.Sprintf("Gateway %s/%s is not accepted; mend it first",
				set.gateway.obj.Namespace, set.gateway.obj.Name))
		case len(invalid) > 0:
			set.accepted = condition(gatewayv1.ListenerSetConditionAccepted, len(invalid) < len(set.listeners),
				gatewayv1.ListenerSetReasonListenersNotValid, listenersAside(invalid))
		}
		if set.accepted.Status {
			set.gateway.sets = append(set.gateway.sets, set)
		}
	}
}

// refuse sets the whole set aside.
func (s *listenerSet) refuse(v *view, field string, reason gatewayv1.ListenerSetConditionReason, message string) {
	s.accepted = condition(gatewayv1.ListenerSetConditionAccepted, false, reason, message)
	v.problem(problem.Problem{Kind: "ListenerSet", Namespace: s.obj.Namespace, Name: s.obj.Name, Field: field, Reason: problem.Reason(reason),
		Message: message, SetAside: "the object"})
}

// outcome is the set's, under its Gateway.
func (s *listenerSet) outcome() plan.Outcome {
	return plan.Outcome{Object: s.origin, Parent: s.gateway.origin, Conditions: []plan.Condition{s.accepted}, AttachedRoutes: -1}
}
