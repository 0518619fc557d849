package gatewayapi

import (
	"fmt"
	"net/netip"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
)

// readAddresses reads spec.addresses. What cannot be served refuses the Gateway as a whole: all listeners must be available on all
// addresses (Gateway API: GatewaySpec.addresses, GatewayReasonUnsupportedAddress), and fewer or more than asked would serve where nobody
// expects it.
func (p *pass) readAddresses(v *view, g *gateway) {
	if p.opts.Standalone {
		g.bindAddresses(v)
	} else {
		g.requestAddresses(v)
	}
}

func addressType(a *gatewayv1.GatewaySpecAddress) gatewayv1.AddressType {
	if a.Type == nil {
		return gatewayv1.IPAddressType
	}
	return *a.Type
}

// bindAddresses takes addresses of this machine. One without a value is for the gateway to choose, which is all interfaces.
func (g *gateway) bindAddresses(v *view) {
	everywhere := false
	for i := range g.obj.Spec.Addresses {
		a, field := &g.obj.Spec.Addresses[i], fmt.Sprintf("spec.addresses[%d]", i)
		ip, err := netip.ParseAddr(a.Value)
		switch kind := addressType(a); {
		case kind != gatewayv1.IPAddressType:
			g.refuse(v, field+".type", problem.UnsupportedAddress, "type %q cannot be bound; use IPAddress", kind)
		case a.Routability != "":
			g.refuse(v, field+".routability", problem.UnsupportedAddress, "routability %q is not served; remove it", a.Routability)
		case a.Value == "":
			everywhere = true
		case err != nil || ip.Zone() != "":
			g.refuse(v, field+".value", problem.UnsupportedAddress,
				"%q is not an IP address; write one of this machine's, or leave spec.addresses out for all interfaces", a.Value)
		case ip.IsMulticast():
			g.refuse(v, field+".value", problem.UnsupportedAddress, "%s is a multicast address, which cannot be bound", ip)
		default:
			g.addresses = append(g.addresses, ip.Unmap())
		}
	}
	if everywhere && len(g.addresses) > 0 {
		g.refuse(v, "spec.addresses", problem.UnsupportedAddress, "an address without a value means all interfaces, and others are named beside "+
			"it; remove either")
	}
}

// requestAddresses notes what whoever runs the proxies is to ask for. Whether it can be had is seen there: an address that is not given
// makes the Gateway not Programmed (AddressNotUsable).
func (g *gateway) requestAddresses(v *view) {
	for i := range g.obj.Spec.Addresses {
		a, field := &g.obj.Spec.Addresses[i], fmt.Sprintf("spec.addresses[%d]", i)
		kind := addressType(a)
		ip, err := netip.ParseAddr(a.Value)
		switch {
		case kind != gatewayv1.IPAddressType && kind != gatewayv1.HostnameAddressType:
			g.refuse(v, field+".type", problem.UnsupportedAddress, "type %q is not served; use IPAddress or Hostname", kind)
			continue
		case a.Routability != "" && a.Routability != gatewayv1.GatewayAddressRoutabilityCluster:
			g.refuse(v, field+".routability", problem.UnsupportedAddress, "routability %q is not served; use Cluster, or remove it", a.Routability)
			continue
		case i > 0 && string(a.Routability) != g.planned.Routability:
			g.refuse(v, field+".routability", problem.UnsupportedAddress, "routability %q and %q on one Gateway are not served; give all addresses "+
				"the same", g.planned.Routability, a.Routability)
			continue
		case kind == gatewayv1.IPAddressType && a.Value != "" && (err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() ||
			ip.IsLoopback()):
			g.refuse(v, field+".value", problem.UnsupportedAddress, "%q is not an IP address that a Service can have; write one, or leave value "+
				"out to have one assigned", a.Value)
			continue
		}
		g.planned.Routability = string(a.Routability)
		g.planned.Addresses = append(g.planned.Addresses, plan.Address{Type: string(kind), Value: a.Value})
	}
}
