package plan

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// Claim is what one listener asks for: a hostname and protocol on a port of some addresses.
type Claim struct {
	// Gateway owns the listener; Created is the Gateway's.
	Gateway config.Origin
	Created time.Time
	// Listener is the listener's name within its Gateway.
	Listener string
	// Addresses is empty for all interfaces.
	Addresses []netip.Addr
	Port      uint16
	Protocol  config.Protocol
	Hostname  string
}

// Conflict says why a claim is refused.
type Conflict struct {
	// Reason is HostnameConflict, ProtocolConflict or "" for none.
	Reason problem.Reason
	// With is the index of the claim that it conflicts with.
	With int
}

// Conflicts decides which claims are refused. The answer has one entry for each claim.
//
// Two listeners conflict when a connection could belong to either: one port, and different protocols (ProtocolConflict), or one
// protocol and one hostname (HostnameConflict). Within a Gateway there is no winner: all listeners in conflict are refused (Gateway
// API: GatewaySpec.listeners, "MUST NOT pick one conflicting Listener as the winner").
//
// When Gateways share their sockets (shared), a claim also conflicts with those of other Gateways whose addresses overlap. There the
// older Gateway wins, so that nobody can stop a Gateway of another team by creating a listener:
//
//	gateway a (2020): HTTP *:80 "", HTTPS *:443 x.example
//	gateway b (2024): HTTP *:80 ""                          -> HostnameConflict with a
//	                  HTTP *:443 y.example                  -> ProtocolConflict with a
//	                  HTTPS *:443 y.example                 -> ProtocolConflict with b's own HTTP on 443, as is that one
func Conflicts(claims []Claim, shared bool) []Conflict {
	out := make([]Conflict, len(claims))
	type socket struct {
		gateway config.Origin
		port    uint16
	}
	own := make(map[socket]*rivals)
	for i, c := range claims {
		key := socket{gatewayKey(c.Gateway), c.Port}
		if own[key] == nil {
			own[key] = newRivals(claims)
		}
		own[key].add(i)
	}
	for i, c := range claims {
		out[i] = own[socket{gatewayKey(c.Gateway), c.Port}].conflict(i, func(j int) bool { return i != j })
	}
	if shared {
		conflictsAcross(claims, out)
	}
	return out
}

// conflictsAcross refuses claims that an older Gateway made first. Claims refused already make no claim on others.
func conflictsAcross(claims []Claim, out []Conflict) {
	order := make([]int, len(claims))
	for i := range claims {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return ByPrecedence(claims[i].Created, claims[i].Gateway, claims[j].Created, claims[j].Gateway)
	})
	taken := make(map[uint16]*rivals)
	for _, i := range order {
		if out[i].Reason != "" {
			continue
		}
		c := claims[i]
		if taken[c.Port] == nil {
			taken[c.Port] = newRivals(claims)
		}
		out[i] = taken[c.Port].conflict(i, func(j int) bool {
			return gatewayKey(claims[j].Gateway) != gatewayKey(c.Gateway) && overlap(c.Addresses, claims[j].Addresses)
		})
		if out[i].Reason == "" {
			taken[c.Port].add(i)
		}
	}
}

// rivals are the claims on one port, found by what they can conflict in, so that ten thousand listeners on one port are no
// quadratic matter.
type rivals struct {
	claims     []Claim
	byProtocol map[config.Protocol][]int
	byHostname map[hostClaim][]int
}

type hostClaim struct {
	protocol config.Protocol
	hostname string
}

func newRivals(claims []Claim) *rivals {
	return &rivals{claims: claims, byProtocol: make(map[config.Protocol][]int), byHostname: make(map[hostClaim][]int)}
}

func (r *rivals) add(i int) {
	c := r.claims[i]
	r.byProtocol[c.Protocol] = append(r.byProtocol[c.Protocol], i)
	key := hostClaim{c.Protocol, c.Hostname}
	r.byHostname[key] = append(r.byHostname[key], i)
}

// conflict finds the first rival that claim i conflicts with. A different protocol is the graver conflict.
func (r *rivals) conflict(i int, counts func(j int) bool) Conflict {
	c := r.claims[i]
	for _, protocol := range []config.Protocol{config.HTTP, config.HTTPS} {
		if protocol == c.Protocol {
			continue
		}
		if at := slices.IndexFunc(r.byProtocol[protocol], counts); at >= 0 {
			return Conflict{Reason: problem.ProtocolConflict, With: r.byProtocol[protocol][at]}
		}
	}
	same := r.byHostname[hostClaim{c.Protocol, c.Hostname}]
	if at := slices.IndexFunc(same, counts); at >= 0 {
		return Conflict{Reason: problem.HostnameConflict, With: same[at]}
	}
	return Conflict{}
}

// Overlaps reports, for each claim, another HTTPS claim on the same socket whose hostname covers some of the same hosts, or -1. A
// client may then reuse one listener's connection for the other's host, which the gateway answers 421 (Gateway API: the listener
// condition OverlappingTLSConfig, which controllers must set). Refused claims take no part.
//
// Two hostnames cover a common host when one is a suffix wildcard above the other: for "a.b.example" these are "*.b.example",
// "*.example" and "". So each claim looks for those above it, and a claim above is marked by the one below.
func Overlaps(claims []Claim, refused []Conflict, shared bool) []int {
	out := make([]int, len(claims))
	type place struct {
		port     uint16
		hostname string
	}
	at := make(map[place][]int)
	for i, c := range claims {
		out[i] = -1
		if c.Protocol == config.HTTPS && refused[i].Reason == "" {
			at[place{c.Port, c.Hostname}] = append(at[place{c.Port, c.Hostname}], i)
		}
	}
	for i, c := range claims {
		if c.Protocol != config.HTTPS || refused[i].Reason != "" {
			continue
		}
		for above, ok := wildcardAbove(c.Hostname); ok; above, ok = wildcardAbove(above) {
			for _, j := range at[place{c.Port, above}] {
				if sameSocket(c, claims[j], shared) {
					out[i] = max(out[i], j)
					out[j] = max(out[j], i)
				}
			}
		}
	}
	return out
}

// wildcardAbove returns the next wider hostname: "a.b.example", "*.b.example", "*.example", "".
func wildcardAbove(hostname string) (string, bool) {
	if hostname == "" {
		return "", false
	}
	_, parent, ok := strings.Cut(strings.TrimPrefix(hostname, "*."), ".")
	if !ok {
		return "", true
	}
	return "*." + parent, true
}

func sameSocket(a, b Claim, shared bool) bool {
	return gatewayKey(a.Gateway) == gatewayKey(b.Gateway) || shared && overlap(a.Addresses, b.Addresses)
}

// gatewayKey is the Origin without what may change while the Gateway stays the same one.
func gatewayKey(o config.Origin) config.Origin {
	return config.Origin{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
}

// overlap reports whether two sets of bind addresses have one in common. All interfaces overlap with every address.
func overlap(a, b []netip.Addr) bool {
	if len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, netip.Addr.IsUnspecified) ||
		slices.ContainsFunc(b, netip.Addr.IsUnspecified) {
		return true
	}
	return slices.ContainsFunc(a, func(x netip.Addr) bool { return slices.Contains(b, x) })
}
