package gatewayapi

import (
	"cmp"
	"slices"
)

// leadKey names an object that requests are led to, and that policies are attached to: a Service or an XBackend.
type leadKey struct{ kind, namespace, name string }

// leads are the Gateways that lead to the objects that somebody asks about. A policy has effect under each Gateway that leads to its
// target, and its status says for each what became of it (Gateway API: PolicyAncestorStatus).
type leads map[leadKey]map[*gateway]bool

// newLeads asks about the targets of policies, and about every XBackend, which has such a status too.
func (p *pass) newLeads() leads {
	out := make(leads)
	for _, policy := range p.tlsPolicies.order {
		for _, ref := range policy.obj.Spec.TargetRefs {
			out[leadKey{string(ref.Kind), policy.obj.Namespace, string(ref.Name)}] = make(map[*gateway]bool)
		}
	}
	for _, policy := range p.trafficPolicies.order {
		for _, ref := range policy.obj.Spec.TargetRefs {
			out[leadKey{string(ref.Kind), policy.obj.Namespace, string(ref.Name)}] = make(map[*gateway]bool)
		}
	}
	for key := range p.st.XBackends {
		out[leadKey{"XBackend", key.Namespace, key.Name}] = make(map[*gateway]bool)
	}
	return out
}

// add notes that a Gateway leads to a target, whether it can be used or not.
func (s leads) add(g *gateway, key targetKey) {
	if of := s[leadKey{key.kind, key.namespace, key.name}]; of != nil {
		of[g] = true
	}
}

// leadFrom notes that a Gateway itself leads to a target, and adds what that wants, also when it cannot be used for want of it.
func (p *pass) leadFrom(g *gateway, key targetKey) {
	p.leads.add(g, key)
	if t := p.targets[key]; t != nil {
		p.refresh(t)
		p.planWants(t.wants)
	}
}

// route notes where a route leads to from a listener.
func (s leads) route(rt *route, l *listener) {
	if len(s) == 0 {
		return
	}
	for i := range rt.uses {
		s.add(l.gateway, rt.uses[i].got.target)
	}
}

// gateways returns those that lead to one of the objects, sorted.
func (s leads) gateways(targets []leadKey) []*gateway {
	found := make(map[*gateway]bool)
	for _, key := range targets {
		for g := range s[key] {
			found[g] = true
		}
	}
	list := make([]*gateway, 0, len(found))
	for g := range found {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *gateway) int {
		return cmp.Or(cmp.Compare(a.obj.Namespace, b.obj.Namespace), cmp.Compare(a.obj.Name, b.obj.Name))
	})
	return list
}
