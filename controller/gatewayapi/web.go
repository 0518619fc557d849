package gatewayapi

import (
	"fmt"
	"slices"
	"strings"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
)

// HTTPRoutes and GRPCRoutes of one hostname.
//
// Rules of an HTTPRoute and of a GRPCRoute are not merged: they have different orders of precedence. So one hostname on one listener
// belongs to one of the two kinds. Of two routes of different kinds whose hostnames intersect the older one counts, then the first by
// namespace and name, and the other is not accepted (Gateway API: GRPCRouteSpec.hostnames):
//
//	HTTPRoute shop (2020)  shop.example, *.api.example   accepted
//	GRPCRoute api  (2021)  v1.api.example                not accepted: *.api.example is the HTTPRoute's
//	GRPCRoute grpc (2022)  grpc.example                  accepted
//	HTTPRoute late (2023)  (every hostname)              not accepted: grpc.example is the GRPCRoute's
//
// A route that others stand in the way of on one listener stays attached to its other listeners.

// hostSet is a set of hostnames that tells whether another intersects with one of them.
type hostSet struct {
	// hosts are the hostnames; above are the wildcards that cover one of them.
	hosts, above map[string]*route
}

// add puts the hostnames of a route into the set.
func (s *hostSet) add(rt *route) {
	if s.hosts == nil {
		s.hosts, s.above = make(map[string]*route), make(map[string]*route)
	}
	for _, host := range rt.claimed {
		if s.hosts[host] == nil {
			s.hosts[host] = rt
		}
	}
	for _, wider := range rt.above {
		if s.above[wider] == nil {
			s.above[wider] = rt
		}
	}
}

// find returns the route of the set that has a hostname in common with the route's, nil if there is none.
func (s *hostSet) find(rt *route) *route {
	for _, host := range rt.claimed {
		if other := s.hosts[host]; other != nil {
			return other
		}
		if other := s.above[host]; other != nil {
			return other
		}
	}
	for _, wider := range rt.above {
		if other := s.hosts[wider]; other != nil {
			return other
		}
	}
	return nil
}

// claimedHosts are the hostnames of a route, "" for every one.
func claimedHosts(hostnames []string) []string {
	if len(hostnames) == 0 {
		return []string{""}
	}
	return hostnames
}

// wildcardsAbove are the wildcards that cover one of the hostnames, each once.
func wildcardsAbove(hostnames []string) (out []string) {
	for _, host := range hostnames {
		for wider, ok := plan.WildcardAbove(host); ok; wider, ok = plan.WildcardAbove(wider) {
			if !slices.Contains(out, wider) {
				out = append(out, wider)
			}
		}
	}
	return out
}

// displaced are the listeners that routes must leave to an older route of the other kind.
type displaced map[*route]map[*listener]*route

// webListener is what displace knows of a listener: which kinds it has, and the hostnames of each.
type webListener struct {
	kinds [2]bool
	hosts [2]hostSet
}

// webKind numbers the kinds that share hostnames.
func webKind(rt *route) (number int, ok bool) {
	switch rt.key.kind {
	case "HTTPRoute":
		return 0, rt.accepted
	case "GRPCRoute":
		return 1, rt.accepted
	}
	return 0, false
}

// displace finds them. What it found before holds as long as no HTTPRoute or GRPCRoute was touched, and it costs next to nothing while no
// listener has both.
func (p *pass) displace() displaced {
	if p.webTouched {
		p.Translator.lost, p.webTouched = p.findDisplaced(), false
	}
	return p.lost
}

func (p *pass) findDisplaced() displaced {
	if len(p.st.GRPCRoutes) == 0 || len(p.st.HTTPRoutes) == 0 {
		return nil
	}
	listeners, both := make(map[*listener]*webListener), false
	for _, rt := range p.order {
		number, ok := webKind(rt)
		for _, l := range rt.attached {
			if !ok {
				break
			}
			web := listeners[l]
			if web == nil {
				web = &webListener{}
				listeners[l] = web
			}
			web.kinds[number] = true
			both = both || web.kinds[0] && web.kinds[1]
		}
	}
	if !both {
		return nil
	}
	out := make(displaced)
	for _, rt := range p.order {
		number, ok := webKind(rt)
		for _, l := range rt.attached {
			if !ok {
				break
			}
			web := listeners[l]
			switch by := web.hosts[1-number].find(rt); {
			case !web.kinds[1-number]:
			case by == nil:
				web.hosts[number].add(rt)
			default:
				if out[rt] == nil {
					out[rt] = make(map[*listener]*route)
				}
				out[rt][l] = by
			}
		}
	}
	return out
}

// outcomes are those of a route, whose attachments may have lost listeners to other routes.
func (d displaced) outcomes(rt *route) ([]plan.Outcome, []problem.Problem) {
	lost := d[rt]
	if len(lost) == 0 {
		return rt.outcomes, nil
	}
	var outcomes []plan.Outcome
	var problems []problem.Problem
	for i := range rt.attachments {
		a := &rt.attachments[i]
		why := a.why
		var names []string
		for _, l := range a.listeners {
			if by := lost[l]; by != nil {
				names = append(names, fmt.Sprintf("listener %s has the older %s %s/%s", l.config.Name, by.key.kind, by.key.namespace, by.key.name))
			}
		}
		if len(names) > 0 {
			message := "a hostname belongs to HTTPRoutes or to GRPCRoutes, not to both: " + strings.Join(slices.Compact(names), ", ") +
				"; use other hostnames"
			one := problem.Problem{Kind: rt.key.kind, Namespace: rt.key.namespace, Name: rt.key.name, Field: "spec.hostnames",
				Reason: problem.KindConflict, Message: message, SetAside: "the route on these listeners"}
			problems = append(problems, one)
			if len(names) == len(a.listeners) {
				why = &refusal{problem.KindConflict, message}
			}
		}
		outcomes = append(outcomes, rt.outcome(a, why))
	}
	return outcomes, problems
}
