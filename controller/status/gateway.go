package status

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
)

// Serving is what is known of the proxies of one Gateway.
type Serving struct {
	// Problem says why the cluster cannot run them; "" for none.
	Problem string
	// Ready is the number of proxies that are ready, as the cluster says.
	Ready int
	// Acknowledged is the number of proxies that run the newest configuration, and Behind that of those that run an older one.
	Acknowledged, Behind int
	// Refused is what proxies say that refused the newest configuration.
	Refused []string
	// Away says that fewer proxies are connected than are ready, for so short a time that they may be coming back. A generation that was
	// programmed counts as programmed still.
	Away bool
	// Listeners are those that some proxy cannot serve, by config.Listener.Name, and why.
	Listeners map[string]string
	// Addresses are those at which the Gateway is reached, Requested those that it asks for.
	Addresses, Requested []plan.Address
}

// lacking says why what the newest configuration holds is not in effect yet; the reason is "" when it is.
func (s *Serving) lacking(was []metav1.Condition, generation int64) (reason, message string) {
	pending := string(gatewayv1.GatewayReasonPending)
	before := meta.FindStatusCondition(was, string(gatewayv1.GatewayConditionProgrammed))
	switch {
	case s.Problem != "":
		return string(gatewayv1.GatewayReasonNoResources), s.Problem
	case s.Ready == 0:
		return pending, "no proxy is ready yet"
	case len(s.Refused) > 0:
		return string(gatewayv1.GatewayReasonInvalid), "refused by " + strings.Join(s.Refused, "; by ")
	case s.Behind > 0:
		return pending, fmt.Sprintf("%d proxies have not taken over the newest configuration yet", s.Behind)
	case s.Away && before != nil && before.Status == metav1.ConditionTrue && before.ObservedGeneration == generation:
		return "", ""
	case s.Acknowledged < s.Ready:
		return pending, fmt.Sprintf("%d of %d ready proxies have the newest configuration", s.Acknowledged, s.Ready)
	}
	return "", ""
}

// gateway tells the outcomes of a Gateway and its listeners. Outcomes of other objects are not among them.
func (v *view) gateway(f fields, o *gatewayv1.Gateway, outcomes []plan.Outcome) {
	own, listeners := split(outcomes)
	if own == nil {
		return
	}
	serving := v.serving(o.Namespace + "/" + o.Name)
	conditions := append(slices.Clone(own.Conditions), gatewayProgrammed(own, listeners, &serving, o.Status.Conditions))
	set(f, "conditions", o.Status.Conditions, v.merge(o.Status.Conditions, conditions, own.Object.Generation))

	before := make(map[string]gatewayv1.ListenerStatus, len(o.Status.Listeners))
	for _, l := range o.Status.Listeners {
		before[string(l.Name)] = l
	}
	after := []gatewayv1.ListenerStatus{}
	for _, l := range inOrder(listeners, o.Spec.Listeners, func(l gatewayv1.Listener) string { return string(l.Name) }) {
		was := before[l.Object.Rule].Conditions
		conditions := append(slices.Clone(l.Conditions), listenerProgrammed(l, &serving, o.Namespace+"/"+o.Name+"/"+l.Object.Rule, was))
		after = append(after, gatewayv1.ListenerStatus{
			Name: gatewayv1.SectionName(l.Object.Rule), SupportedKinds: kinds(l.SupportedKinds), AttachedRoutes: int32(l.AttachedRoutes),
			Conditions: v.merge(was, conditions, l.Object.Generation),
		})
	}
	set(f, "listeners", o.Status.Listeners, after)
	set(f, "addresses", o.Status.Addresses, addresses(serving.Addresses))
	if o.Status.AttachedListenerSets == nil || int(*o.Status.AttachedListenerSets) != own.AttachedListenerSets {
		f["attachedListenerSets"] = own.AttachedListenerSets
	}
}

// gatewayProgrammed says whether a Gateway is reached at its addresses and serves its newest generation.
func gatewayProgrammed(own *plan.Outcome, listeners []*plan.Outcome, serving *Serving, was []metav1.Condition) plan.Condition {
	accepted := find(own.Conditions, string(gatewayv1.GatewayConditionAccepted))
	if accepted != nil && !accepted.Status {
		return programmed(false, accepted.Reason, "%s", accepted.Message)
	}
	if len(listeners) > 0 && !slices.ContainsFunc(listeners, func(l *plan.Outcome) bool { return l.Serves }) && own.AttachedListenerSets == 0 {
		return programmed(false, string(gatewayv1.GatewayReasonInvalid), "no listener can be served")
	}
	if serving.Problem == "" {
		for _, a := range serving.Requested {
			if a.Value != "" && !slices.ContainsFunc(serving.Addresses, func(b plan.Address) bool { return sameAddress(a.Value, b.Value) }) {
				return programmed(false, string(gatewayv1.GatewayReasonAddressNotUsable),
					"the cluster has not given the Gateway the address %q; choose one that it can give, or leave spec.addresses out", a.Value)
			}
		}
		if len(serving.Addresses) == 0 {
			return programmed(false, string(gatewayv1.GatewayReasonAddressNotAssigned),
				"the cluster has not given the Gateway an address yet; something in it has to answer Services of its type, for example a load balancer")
		}
	}
	if reason, message := serving.lacking(was, own.Object.Generation); reason != "" {
		return programmed(false, reason, "%s", message)
	}
	if why := closed(own, listeners, serving); why != "" && own.AttachedListenerSets == 0 {
		return programmed(false, string(gatewayv1.GatewayReasonInvalid), "the proxies serve no listener: %s", why)
	}
	return programmed(true, string(gatewayv1.GatewayReasonProgrammed), "")
}

// closed says why proxies can serve none of a Gateway's listeners; "" when they serve one, or have none to serve.
func closed(own *plan.Outcome, listeners []*plan.Outcome, serving *Serving) (why string) {
	for _, l := range listeners {
		if !l.Serves {
			continue
		}
		if why = serving.Listeners[own.Object.Namespace+"/"+own.Object.Name+"/"+l.Object.Rule]; why == "" {
			return ""
		}
	}
	return why
}

// sameAddress compares hostnames in any case, and IP addresses in any of their spellings.
func sameAddress(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	x, err := netip.ParseAddr(a)
	y, wrong := netip.ParseAddr(b)
	return err == nil && wrong == nil && x.Unmap() == y.Unmap()
}

// listenerProgrammed says whether the proxies serve a listener; name is its name in the configuration.
func listenerProgrammed(l *plan.Outcome, serving *Serving, name string, was []metav1.Condition) plan.Condition {
	accepted := find(l.Conditions, string(gatewayv1.ListenerConditionAccepted))
	if accepted != nil && !accepted.Status {
		return programmed(false, accepted.Reason, "%s", accepted.Message)
	}
	if !l.Serves {
		message := "the listener cannot be served"
		if resolved := find(l.Conditions, string(gatewayv1.ListenerConditionResolvedRefs)); resolved != nil && !resolved.Status {
			message = resolved.Message
		}
		return programmed(false, string(gatewayv1.ListenerReasonInvalid), "%s", message)
	}
	if reason, message := serving.lacking(was, l.Object.Generation); reason != "" {
		if reason != string(gatewayv1.ListenerReasonInvalid) {
			reason = string(gatewayv1.ListenerReasonPending)
		}
		return programmed(false, reason, "%s", message)
	}
	if why := serving.Listeners[name]; why != "" {
		return programmed(false, string(gatewayv1.ListenerReasonPortUnavailable), "%s", why)
	}
	return programmed(true, string(gatewayv1.ListenerReasonProgrammed), "")
}

// listenerSet tells the outcomes of a ListenerSet and its entries.
func (v *view) listenerSet(f fields, o *gatewayv1.ListenerSet, outcomes []plan.Outcome) {
	own, listeners := split(outcomes)
	if own == nil {
		return
	}
	parent := own.Parent.Namespace + "/" + own.Parent.Name
	serving := v.serving(parent)
	conditions := append(slices.Clone(own.Conditions), setProgrammed(own, listeners, &serving, o.Status.Conditions))
	set(f, "conditions", o.Status.Conditions, v.merge(o.Status.Conditions, conditions, own.Object.Generation))

	before := make(map[string]gatewayv1.ListenerEntryStatus, len(o.Status.Listeners))
	for _, l := range o.Status.Listeners {
		before[string(l.Name)] = l
	}
	after := []gatewayv1.ListenerEntryStatus{}
	for _, l := range inOrder(listeners, o.Spec.Listeners, func(l gatewayv1.ListenerEntry) string { return string(l.Name) }) {
		was := before[l.Object.Rule].Conditions
		name := parent + "/" + o.Namespace + "/" + o.Name + "/" + l.Object.Rule
		conditions := append(slices.Clone(l.Conditions), listenerProgrammed(l, &serving, name, was))
		after = append(after, gatewayv1.ListenerEntryStatus{
			Name: gatewayv1.SectionName(l.Object.Rule), SupportedKinds: kinds(l.SupportedKinds), AttachedRoutes: int32(l.AttachedRoutes),
			Conditions: v.merge(was, conditions, l.Object.Generation),
		})
	}
	set(f, "listeners", o.Status.Listeners, after)
}

func setProgrammed(own *plan.Outcome, listeners []*plan.Outcome, serving *Serving, was []metav1.Condition) plan.Condition {
	accepted := find(own.Conditions, string(gatewayv1.ListenerSetConditionAccepted))
	if accepted != nil && !accepted.Status {
		return programmed(false, accepted.Reason, "%s", accepted.Message)
	}
	if !slices.ContainsFunc(listeners, func(l *plan.Outcome) bool { return l.Serves }) {
		return programmed(false, string(gatewayv1.ListenerSetReasonListenersNotValid), "no listener can be served")
	}
	if reason, message := serving.lacking(was, own.Object.Generation); reason != "" {
		return programmed(false, reasonParentNotProgrammed, "the Gateway: %s", message)
	}
	return programmed(true, string(gatewayv1.ListenerSetReasonProgrammed), "")
}

// reasonParentNotProgrammed is in the list of reasons at ListenerSetConditionProgrammed; Gateway API has no constant for it.
const reasonParentNotProgrammed = "ParentNotProgrammed"

// split tells the outcome of the whole object from those of its listeners.
func split(outcomes []plan.Outcome) (own *plan.Outcome, listeners []*plan.Outcome) {
	for i := range outcomes {
		if outcomes[i].Object.Rule == "" {
			own = &outcomes[i]
		} else {
			listeners = append(listeners, &outcomes[i])
		}
	}
	return own, listeners
}

// inOrder sorts the outcomes of listeners as the object lists them; those that it no longer has come last.
func inOrder[T any](listeners []*plan.Outcome, spec []T, name func(T) string) []*plan.Outcome {
	place := make(map[string]int, len(spec))
	for i, l := range spec {
		place[name(l)] = i - len(spec) // below 0, which is the place of those that are missing
	}
	slices.SortStableFunc(listeners, func(a, b *plan.Outcome) int { return place[a.Object.Rule] - place[b.Object.Rule] })
	return listeners
}

func kinds(names []string) []gatewayv1.RouteGroupKind {
	out := make([]gatewayv1.RouteGroupKind, 0, len(names))
	for _, name := range names {
		group := gatewayv1.Group(gatewayv1.GroupName)
		out = append(out, gatewayv1.RouteGroupKind{Group: &group, Kind: gatewayv1.Kind(name)})
	}
	return out
}

func addresses(list []plan.Address) []gatewayv1.GatewayStatusAddress {
	out := []gatewayv1.GatewayStatusAddress{}
	for _, a := range list[:min(len(list), maxAddresses)] {
		kind := gatewayv1.AddressType(a.Type)
		out = append(out, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a.Value})
	}
	return out
}
