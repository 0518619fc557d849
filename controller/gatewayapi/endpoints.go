package gatewayapi

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source"
)

// endpointIndex is the EndpointSlices by the Service that they belong to, sorted by name.
type endpointIndex map[types.NamespacedName][]*discoveryv1.EndpointSlice

func newEndpointIndex(st *source.State) endpointIndex {
	index := make(endpointIndex, len(st.EndpointSlices))
	for _, slice := range st.EndpointSlices {
		if service := slice.Labels[discoveryv1.LabelServiceName]; service != "" {
			key := types.NamespacedName{Namespace: slice.Namespace, Name: service}
			index[key] = append(index[key], slice)
		}
	}
	for _, list := range index {
		slices.SortFunc(list, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	}
	return index
}

// maxEndpoints bounds the addresses of one cluster, ten times what a Service has in the largest clusters. They travel in one piece, of which one that
// is larger than a proxy takes would keep a Gateway that many share from getting any change at all.
const maxEndpoints = 50_000

// endpoints returns the addresses to send to: the ready ones, or, when there is none, those that still serve while they terminate, as
// kube-proxy does, so that the last pod of a rollout finishes its work.
func (p *pass) endpoints(t *target, list []*discoveryv1.EndpointSlice) ([]netip.AddrPort, []problem.Problem) {
	var ready, terminating []netip.AddrPort
	var problems []problem.Problem
	for _, slice := range list {
		if slice.AddressType == discoveryv1.AddressTypeFQDN {
			problems = append(problems, sliceProblem(slice, "addressType", problem.UnsupportedValue, "the object",
				"address type FQDN is not served; use IPv4 or IPv6, or a Service of type ExternalName"))
			continue
		}
		port, ok := slicePort(slice, t.portName)
		if !ok {
			continue
		}
		for i, endpoint := range slice.Endpoints {
			serving, leaving := endpointState(endpoint.Conditions)
			if !serving {
				continue
			}
			for j, address := range endpoint.Addresses {
				ip, err := p.endpointAddress(address)
				if err != nil {
					field := fmt.Sprintf("endpoints[%d].addresses[%d]", i, j)
					problems = append(problems, sliceProblem(slice, field, problem.InvalidBackend, "the address", "%v", err))
					continue
				}
				if leaving {
					terminating = append(terminating, netip.AddrPortFrom(ip, port))
				} else {
					ready = append(ready, netip.AddrPortFrom(ip, port))
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = terminating
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	if ready = slices.Compact(ready); len(ready) > maxEndpoints {
		problems = append(problems, sliceProblem(list[0], "endpoints", problem.UnsupportedValue, "the other addresses",
			"the Service has %d addresses, of which %d are used; split it", len(ready), maxEndpoints))
		ready = slices.Clip(ready[:maxEndpoints])
	}
	return ready, problems
}

// endpointState reads the conditions: whether the endpoint takes requests, and whether it does so only to the end of its termination.
// A nil Ready means ready, a nil Serving means as Ready says.
func endpointState(c discoveryv1.EndpointConditions) (serving, leaving bool) {
	ready := c.Ready == nil || *c.Ready
	serving = ready
	if c.Serving != nil {
		serving = *c.Serving
	}
	if c.Terminating != nil && *c.Terminating {
		return serving, true
	}
	return ready, false
}

// slicePort finds the port that a Service's port of that name stands for.
func slicePort(slice *discoveryv1.EndpointSlice, name string) (uint16, bool) {
	for _, port := range slice.Ports {
		got := ""
		if port.Name != nil {
			got = *port.Name
		}
		if got == name && port.Port != nil && *port.Port > 0 && *port.Port <= 65535 {
			return uint16(*port.Port), true
		}
	}
	return 0, false
}

// endpointAddress takes the addresses that an API server takes in an EndpointSlice, and loopback in standalone mode.
func (p *pass) endpointAddress(address string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(address)
	ip = ip.Unmap()
	switch {
	case err != nil || ip.Zone() != "":
		return ip, fmt.Errorf("%q is not an IP address", address)
	case ip.IsLoopback() && !p.opts.Standalone:
		return ip, fmt.Errorf("%s is a loopback address, which would lead into the gateway itself; name the address of a pod or host", ip)
	case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast():
		return ip, fmt.Errorf("%s is an unspecified, multicast or link-local address; name the address of a pod or host", ip)
	}
	return ip, nil
}

func sliceProblem(slice *discoveryv1.EndpointSlice, field string, reason problem.Reason, setAside, format string, args ...any) problem.Problem {
	return problem.Problem{Kind: "EndpointSlice", Namespace: slice.Namespace, Name: slice.Name, Field: field, Reason: reason,
		Message: fmt.Sprintf(format, args...), SetAside: setAside}
}
