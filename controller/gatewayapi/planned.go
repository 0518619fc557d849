package gatewayapi

import (
	"cmp"
	"slices"
	"strconv"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
)

// plan takes from the object what is to be run for it. Ports come last, when it is known which listeners serve.
func (g *gateway) plan() {
	g.planned = plan.Gateway{Origin: g.origin, UID: string(g.obj.UID), Class: string(g.obj.Spec.GatewayClassName)}
	infrastructure := g.obj.Spec.Infrastructure
	if infrastructure == nil {
		return
	}
	if len(infrastructure.Labels) > 0 {
		g.planned.Labels = make(map[string]string, len(infrastructure.Labels))
		for key, value := range infrastructure.Labels {
			g.planned.Labels[string(key)] = string(value)
		}
	}
	if len(infrastructure.Annotations) > 0 {
		g.planned.Annotations = make(map[string]string, len(infrastructure.Annotations))
		for key, value := range infrastructure.Annotations {
			g.planned.Annotations[string(key)] = string(value)
		}
	}
}

// planGateways fills in what is to be run for each accepted Gateway, once it is known which listeners serve.
func (v *view) planGateways() {
	type socket struct {
		number uint16
		udp    bool
	}
	wanted := make(map[*gateway]map[socket]bool, len(v.gateways))
	for _, l := range v.listeners {
		if !l.serves() {
			continue
		}
		sockets := wanted[l.gateway]
		if sockets == nil {
			sockets = make(map[socket]bool)
			wanted[l.gateway] = sockets
		}
		sockets[socket{l.config.Port, l.config.Protocol == config.UDP}] = true
		if l.config.Protocol == config.HTTPS { // and HTTP/3
			sockets[socket{l.config.Port, true}] = true
		}
	}
	for _, g := range v.gateways {
		if accepted, _ := g.judge(); !accepted.Status {
			continue
		}
		planned := g.planned
		for s := range wanted[g] {
			port := plan.Port{Number: s.number, Protocol: "TCP", Name: "tcp-" + strconv.Itoa(int(s.number))}
			if s.udp {
				port.Protocol, port.Name = "UDP", "udp-"+strconv.Itoa(int(s.number))
			}
			planned.Ports = append(planned.Ports, port)
		}
		slices.SortFunc(planned.Ports, func(a, b plan.Port) int {
			return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol))
		})
		v.planned = append(v.planned, planned)
	}
}

// want notes that a permitted reference leads to a Secret or ConfigMap, whether that exists or not. A source that fetches objects one by
// one fetches what is wanted (plan.Plan.Wants).
//
// Stages are remembered from one translation to the next, and so must be what they want: while the view is built, or a target read, it
// goes into a list of theirs. Called outside of them it holds for this translation.
func (p *pass) want(kind, namespace, name string) {
	if p.wants != nil {
		*p.wants = append(*p.wants, config.Origin{Kind: kind, Namespace: namespace, Name: name})
		return
	}
	p.b.Want(kind, namespace, name)
}

// collectWants lets want write to a list until the function that it returns is called.
func (p *pass) collectWants(list *[]config.Origin) (end func()) {
	before := p.wants
	p.wants = list
	return func() { p.wants = before }
}

// planWants adds what a remembered stage wants.
func (p *pass) planWants(list []config.Origin) {
	for i := range list {
		p.b.Want(list[i].Kind, list[i].Namespace, list[i].Name)
	}
}
