package gatewayapi

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// gateway is one Gateway of this controller.
type gateway struct {
	obj       *gatewayv1.Gateway
	origin    config.Origin
	created   time.Time
	addresses []netip.Addr
	listeners []*listener
	// refused is the reason that the whole Gateway is set aside for; "" for none.
	refused        problem.Reason
	refusedMessage string
	// sets are its accepted ListenerSets, in order of precedence.
	sets []*listenerSet
	// planned is what the Plan says of the Gateway beside its ports.
	planned plan.Gateway
	// client is the certificate that backends are shown, nil for none; clientFault is why there is none although one is asked for.
	client      *config.Certificate
	clientFault fault
}

// buildGateway adds a Gateway and its listeners to the view.
func (p *pass) buildGateway(v *view, key types.NamespacedName, obj *gatewayv1.Gateway) {
	v.places[objectName{"Gateway", obj.Namespace, obj.Name}] = p.place("Gateway", obj.Namespace, obj.Name)
	g := &gateway{
		obj:     obj,
		origin:  p.origin("Gateway", obj.Namespace, obj.Name, obj.Generation, ""),
		created: obj.CreationTimestamp.Time,
	}
	v.gateways[key] = g
	g.plan()
	p.readAddresses(v, g)
	p.readParameters(v, g)
	p.readClientCertificate(v, g)
	for i := range obj.Spec.Listeners {
		l := p.buildListener(v, g, nil, i, &obj.Spec.Listeners[i])
		g.listeners = append(g.listeners, l)
		v.listeners = append(v.listeners, l)
	}
}

// refuse sets the whole Gateway aside.
func (g *gateway) refuse(v *view, field string, reason problem.Reason, format string, args ...any) {
	one := gatewayProblem(g.obj, field, reason, "the object", format, args...)
	if g.refused == "" {
		g.refused, g.refusedMessage = reason, one.Message
	}
	v.problem(one)
}

// judge sums up the Gateway's own listeners in the conditions Accepted and ResolvedRefs. Those of its ListenerSets are theirs.
func (g *gateway) judge() (accepted, resolved plan.Condition) {
	var invalid, unresolved []string
	for _, l := range g.listeners {
		if !l.accepted.Status || l.conflicted.Status {
			invalid = append(invalid, string(l.spec.Name))
		}
		if !l.resolved.Status {
			unresolved = append(unresolved, string(l.spec.Name))
		}
	}
	accepted = condition(gatewayv1.GatewayConditionAccepted, true, gatewayv1.GatewayReasonAccepted, "")
	switch {
	case g.refused != "":
		accepted = condition(gatewayv1.GatewayConditionAccepted, false, g.refused, g.refusedMessage)
	case len(invalid) > 0:
		accepted = condition(gatewayv1.GatewayConditionAccepted, len(invalid) < len(g.listeners), gatewayv1.GatewayReasonListenersNotValid,
			listenersAside(invalid))
	}
	resolved = condition(gatewayv1.GatewayConditionResolvedRefs, true, gatewayv1.GatewayReasonResolvedRefs, "")
	switch {
	case g.clientFault.reason != "":
		resolved = condition(gatewayv1.GatewayConditionResolvedRefs, false, g.clientFault.reason,
			"spec.tls.backend.clientCertificateRef: "+g.clientFault.message)
	case len(unresolved) > 0:
		resolved = condition(gatewayv1.GatewayConditionResolvedRefs, false, gatewayv1.GatewayReasonListenersNotResolved,
			"listeners with references that do not resolve: "+strings.Join(unresolved, ", "))
	}
	return accepted, resolved
}

func listenersAside(names []string) string {
	return "listeners set aside: " + strings.Join(names, ", ")
}

// outcome is the Gateway's, under its class.
func (g *gateway) outcome() plan.Outcome {
	accepted, resolved := g.judge()
	conditions := []plan.Condition{accepted, resolved}
	if insecure := g.insecureCondition(); insecure != nil {
		conditions = append(conditions, *insecure)
	}
	if g.isDefault() {
		conditions = append(conditions, g.defaultCondition())
	}
	return plan.Outcome{
		Object:               g.origin,
		Parent:               config.Origin{Kind: "GatewayClass", Name: string(g.obj.Spec.GatewayClassName)},
		Conditions:           conditions,
		AttachedRoutes:       -1,
		AttachedListenerSets: len(g.sets),
	}
}

func gatewayProblem(obj *gatewayv1.Gateway, field string, reason problem.Reason, setAside, format string, args ...any) problem.Problem {
	return problem.Problem{Kind: "Gateway", Namespace: obj.Namespace, Name: obj.Name, Field: field, Reason: reason,
		Message: fmt.Sprintf(format, args...), SetAside: setAside}
}
