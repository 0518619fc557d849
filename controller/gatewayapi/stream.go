package gatewayapi

import (
	"fmt"
	"reflect"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/gateway/config"
)

// streamRule is a rule of a TLSRoute, TCPRoute or UDPRoute, which have the same ones.
type streamRule struct {
	name     *gatewayv1.SectionName
	backends []gatewayv1.BackendRef
}

// streamRoute translates a TLSRoute, TCPRoute or UDPRoute and returns how many rules there were.
func (b *routeBuilder) streamRoute(rt *route, origin config.Origin) int {
	hostnames, rules := streamRules(rt)
	b.readHostnames(hostnames)
	var made []*config.StreamRoute
	for i, rule := range rules {
		one := &config.StreamRoute{Origin: origin, Created: created(rt.obj), Hostnames: b.hosts, Rule: ruleName(i, rule.name)}
		for j := range rule.backends {
			one.Backends = append(one.Backends, b.streamBackend(fmt.Sprintf("spec.rules[%d].backendRefs[%d]", i, j), &rule.backends[j]))
		}
		if b.hostsOK {
			made = append(made, one)
		}
	}
	if !reflect.DeepEqual(rt.streams, made) {
		rt.streams = made
	}
	return len(rules)
}

func streamRules(rt *route) (hostnames []gatewayv1.Hostname, rules []streamRule) {
	switch obj := rt.obj.(type) {
	case *gatewayv1.TLSRoute:
		for _, r := range obj.Spec.Rules {
			rules = append(rules, streamRule{r.Name, r.BackendRefs})
		}
		return obj.Spec.Hostnames, rules
	case *gatewayv1.TCPRoute:
		for _, r := range obj.Spec.Rules {
			rules = append(rules, streamRule{r.Name, r.BackendRefs})
		}
	case *gatewayv1.UDPRoute:
		for _, r := range obj.Spec.Rules {
			rules = append(rules, streamRule{r.Name, r.BackendRefs})
		}
	}
	return nil, rules
}

// streamBackend translates one backendRef. The share of one that leads nowhere is refused, not given to the others (Gateway API:
// TCPRouteRule.backendRefs).
func (b *routeBuilder) streamBackend(field string, spec *gatewayv1.BackendRef) config.Backend {
	out := config.Backend{Weight: 1}
	if spec.Weight != nil {
		out.Weight = uint32(max(*spec.Weight, 0))
	}
	got := b.resolve(field, "backend "+string(spec.Name), spec.BackendObjectReference)
	if got.reason != "" {
		out.Invalid = string(got.reason)
		return out
	}
	out.Cluster = got.target.String()
	b.lead(got.target)
	return out
}
