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
	g.readAddresses(v)
	if obj.Spec.Infrastructure != nil && obj.Spec.Infrastructure.ParametersRef != nil {
		ref := obj.Spec.Infrastructure.ParametersRef
		g.refuse(v, "spec.infrastructure.parametersRef", problem.InvalidParameters,
			"kind %q is not one that this version reads; remove parametersRef", ref.Kind)
	}
	if tls := obj.Spec.TLS; tls != nil && tls.Backend != nil {
		v.problem(gatewayProblem(obj, "spec.tls.backend", problem.UnsupportedValue, "the client certificate",
			"this version presents no client certificate to backends, so a backend that asks for one refuses its connections; "+
				"remove the field"))
	}
	if scope := obj.Spec.DefaultScope; scope != "" && scope != gatewayv1.GatewayDefaultScopeNone {
		v.problem(gatewayProblem(obj, "spec.defaultScope", problem.UnsupportedValue, "the default scope",
			"this version claims no routes by default; name this Gateway in each route's spec.parentRefs"))
	}
	for i := range obj.Spec.Listeners {
		l := p.buildListener(v, g, i)
		g.listeners = append(g.listeners, l)
		v.listeners = append(v.listeners, l)
	}
}

// readAddresses reads spec.addresses. One that cannot be bound refuses the Gateway as a whole: all listeners must be available on all
// addresses (Gateway API: GatewaySpec.addresses, GatewayReasonUnsupportedAddress), and binding fewer or more than asked would serve
// where nobody expects it.
func (g *gateway) readAddresses(v *view) {
	for i, a := range g.obj.Spec.Addresses {
		field := fmt.Sprintf("spec.addresses[%d]", i)
		kind := gatewayv1.IPAddressType
		if a.Type != nil {
			kind = *a.Type
		}
		ip, err := netip.ParseAddr(a.Value)
		switch {
		case kind != gatewayv1.IPAddressType:
			g.refuse(v, field+".type", problem.UnsupportedAddress, "type %q cannot be bound; use IPAddress", kind)
		case a.Routability != "":
			g.refuse(v, field+".routability", problem.UnsupportedAddress, "routability %q is not served; remove it", a.Routability)
		case err != nil || ip.Zone() != "":
			g.refuse(v, field+".value", problem.UnsupportedAddress,
				"%q is not an IP address; write one of this machine's, or leave spec.addresses out for all interfaces", a.Value)
		case ip.IsMulticast():
			g.refuse(v, field+".value", problem.UnsupportedAddress, "%s is a multicast address, which cannot be bound", ip)
		default:
			g.addresses = append(g.addresses, ip.Unmap())
		}
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

// outcome sums up the listeners.
func (g *gateway) outcome() plan.Outcome {
	var invalid, unresolved []string
	for _, l := range g.listeners {
		if !l.accepted.Status || l.conflicted.Status {
			invalid = append(invalid, string(l.spec.Name))
		}
		if !l.resolved.Status {
			unresolved = append(unresolved, string(l.spec.Name))
		}
	}
	accepted := condition(gatewayv1.GatewayConditionAccepted, true, gatewayv1.GatewayReasonAccepted, "")
	switch {
	case g.refused != "":
		accepted = condition(gatewayv1.GatewayConditionAccepted, false, g.refused, g.refusedMessage)
	case len(invalid) > 0:
		message := "listeners set aside: " + strings.Join(invalid, ", ")
		accepted = condition(gatewayv1.GatewayConditionAccepted, len(invalid) < len(g.listeners),
			gatewayv1.GatewayReasonListenersNotValid, message)
	}
	resolved := condition(gatewayv1.GatewayConditionResolvedRefs, true, gatewayv1.GatewayReasonResolvedRefs, "")
	if len(unresolved) > 0 {
		resolved = condition(gatewayv1.GatewayConditionResolvedRefs, false, gatewayv1.GatewayReasonListenersNotResolved,
			"listeners with references that do not resolve: "+strings.Join(unresolved, ", "))
	}
	return plan.Outcome{
		Object:         g.origin,
		Parent:         config.Origin{Kind: "GatewayClass", Name: string(g.obj.Spec.GatewayClassName)},
		Conditions:     []plan.Condition{accepted, resolved},
		AttachedRoutes: -1,
	}
}

// clientValidation returns the client certificate validation for HTTPS on a port: that of the port, or the default (Gateway API:
// FrontendTLSConfig).
func (g *gateway) clientValidation(port int32) *gatewayv1.FrontendTLSValidation {
	if g.obj.Spec.TLS == nil || g.obj.Spec.TLS.Frontend == nil {
		return nil
	}
	for _, per := range g.obj.Spec.TLS.Frontend.PerPort {
		if per.Port == port {
			return per.TLS.Validation
		}
	}
	return g.obj.Spec.TLS.Frontend.Default.Validation
}

func gatewayProblem(obj *gatewayv1.Gateway, field string, reason problem.Reason, setAside, format string, args ...any) problem.Problem {
	return problem.Problem{Kind: "Gateway", Namespace: obj.Namespace, Name: obj.Name, Field: field, Reason: reason,
		Message: fmt.Sprintf(format, args...), SetAside: setAside}
}
