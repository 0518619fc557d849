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
	// Set is the ListenerSet that the listener stands in, the zero Origin for the Gateway itself; SetCreated is the set's.
	Set        config.Origin
	SetCreated time.Time
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
// Two listeners conflict when a connection could belong to either. HTTP, HTTPS, TLS and TCP share a port's connections: HTTPS and TLS
// listeners are told apart by hostname, HTTP listeners among themselves too, TCP listeners by nothing. What cannot share the port at all
// is a ProtocolConflict; what could with another hostname is a HostnameConflict. UDP is another port under the same number.
//
// Within a Gateway there is no winner: all listeners in conflict are refused (Gateway API: GatewaySpec.listeners, "MUST NOT pick one
// conflicting Listener as the winner"). Its ListenerSets come after it, the oldest first: a claim that conflicts with an earlier one is
// refused alone (ListenerSetSpec.listeners), and among what is left of one set there is again no winner.
//
// When Gateways share their sockets (shared), a claim also conflicts with those of other Gateways whose addresses overlap. There the
// older Gateway wins, so that nobody can stop a Gateway of another team by creating a listener:
//
//	gateway a (2020): HTTP *:80 "", HTTPS *:443 x.example
//	  its set s:      HTTP *:80 y.example, TCP *:80         -> the second: ProtocolConflict with the Gateway's
//	gateway b (2024): HTTP *:80 ""                          -> HostnameConflict with a
//	                  HTTP *:443 y.example                  -> ProtocolConflict with a
//	                  HTTPS *:443 y.example                 -> ProtocolConflict with b's own HTTP on 443, as is that one
func Conflicts(claims []Claim, shared bool) []Conflict {
	out := make([]Conflict, len(claims))
	taken := make(map[socket]*rivals)
	for _, group := range claimants(claims) {
		// A Gateway's listeners stop each other before they are held against other Gateways; a set's entries are first held against its
		// Gateway, which stops only those that are in conflict with it.
		if !group.set {
			conflictsWithin(claims, group.members, out)
		}
		for _, i := range group.members {
			if out[i].Reason != "" {
				continue
			}
			c := &claims[i]
			out[i] = taken[c.socket(shared)].conflict(i, func(j int) bool {
				return gatewayKey(claims[j].Gateway) == gatewayKey(c.Gateway) || overlap(c.Addresses, claims[j].Addresses)
			})
		}
		if group.set {
			conflictsWithin(claims, group.members, out)
		}
		for _, i := range group.members {
			if out[i].Reason == "" {
				add(taken, claims[i].socket(shared), claims, i)
			}
		}
	}
	return out
}

// claimGroup is the claims of one object.
type claimGroup struct {
	set     bool
	members []int
}

// claimants groups the claims by Gateway and ListenerSet, in order of precedence.
func claimants(claims []Claim) []claimGroup {
	order := make([]int, len(claims))
	for i := range claims {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := &claims[i], &claims[j]
		if c := ByPrecedence(a.Created, a.Gateway, b.Created, b.Gateway); c != 0 {
			return c
		}
		return ByPrecedence(a.SetCreated, a.Set, b.SetCreated, b.Set) // the Gateway itself has no time and no name, and so comes first
	})
	var groups []claimGroup
	for k, i := range order {
		if k == 0 || gatewayKey(claims[i].Gateway) != gatewayKey(claims[order[k-1]].Gateway) ||
			gatewayKey(claims[i].Set) != gatewayKey(claims[order[k-1]].Set) {
			groups = append(groups, claimGroup{set: claims[i].Set.Name != ""})
		}
		last := &groups[len(groups)-1]
		last.members = append(last.members, i)
	}
	return groups
}

// conflictsWithin refuses all claims of one object that are in conflict with each other. Those refused already take no part.
func conflictsWithin(claims []Claim, members []int, out []Conflict) {
	own := make(map[socket]*rivals)
	for _, i := range members {
		if out[i].Reason == "" {
			add(own, claims[i].socket(false), claims, i)
		}
	}
	found := make(map[int]Conflict)
	for _, i := range members {
		if out[i].Reason == "" {
			found[i] = own[claims[i].socket(false)].conflict(i, func(j int) bool { return i != j })
		}
	}
	for i, conflict := range found {
		out[i] = conflict
	}
}

// socket is where claims can get in each other's way.
type socket struct {
	// gateway is the zero Origin when Gateways share their sockets.
	gateway config.Origin
	port    uint16
	udp     bool
}

func (c *Claim) socket(shared bool) socket {
	s := socket{port: c.Port, udp: c.Protocol == config.UDP}
	if !shared {
		s.gateway = gatewayKey(c.Gateway)
	}
	return s
}

func add(sockets map[socket]*rivals, at socket, claims []Claim, i int) {
	if sockets[at] == nil {
		sockets[at] = &rivals{claims: claims, byProtocol: make(map[config.Protocol][]int), byHostname: make(map[hostClaim][]int)}
	}
	sockets[at].add(i)
}

// rivals are the claims on one socket, found by what they can conflict in, so that ten thousand listeners on one port are no
// quadratic matter. No rivals at all are nil.
type rivals struct {
	claims     []Claim
	byProtocol map[config.Protocol][]int
	byHostname map[hostClaim][]int
}

// hostClaim is a hostname among the protocols that it tells apart.
type hostClaim struct {
	tls      bool
	hostname string
}

func (c *Claim) hostClaim() hostClaim {
	return hostClaim{c.Protocol == config.HTTPS || c.Protocol == config.TLS, c.Hostname}
}

func (r *rivals) add(i int) {
	c := &r.claims[i]
	r.byProtocol[c.Protocol] = append(r.byProtocol[c.Protocol], i)
	r.byHostname[c.hostClaim()] = append(r.byHostname[c.hostClaim()], i)
}

// conflict finds the first rival that claim i conflicts with. A protocol that cannot share the socket is the graver conflict.
func (r *rivals) conflict(i int, counts func(j int) bool) Conflict {
	if r == nil {
		return Conflict{}
	}
	c := &r.claims[i]
	for _, protocol := range [...]config.Protocol{config.HTTP, config.HTTPS, config.TLS, config.TCP, config.UDP} {
		if shareSocket(protocol, c.Protocol) {
			continue
		}
		if at := slices.IndexFunc(r.byProtocol[protocol], counts); at >= 0 {
			return Conflict{Reason: problem.ProtocolConflict, With: r.byProtocol[protocol][at]}
		}
	}
	same := r.byHostname[c.hostClaim()]
	if at := slices.IndexFunc(same, counts); at >= 0 {
		return Conflict{Reason: problem.HostnameConflict, With: same[at]}
	}
	return Conflict{}
}

// shareSocket reports whether listeners of two protocols can be told apart by their hostnames.
func shareSocket(a, b config.Protocol) bool {
	overTLS := func(p config.Protocol) bool { return p == config.HTTPS || p == config.TLS }
	return a == config.HTTP && b == config.HTTP || overTLS(a) && overTLS(b)
}

// Shadows reports, for each claim of HTTPS, a claim of UDP on the same port and address, or -1. HTTP/3 would need that socket, and goes
// without. Refused claims take no part.
func Shadows(claims []Claim, refused []Conflict, shared bool) []int {
	datagrams := make(map[uint16][]int)
	for i, c := range claims {
		if c.Protocol == config.UDP && refused[i].Reason == "" {
			datagrams[c.Port] = append(datagrams[c.Port], i)
		}
	}
	out := make([]int, len(claims))
	for i, c := range claims {
		out[i] = -1
		if c.Protocol != config.HTTPS || refused[i].Reason != "" {
			continue
		}
		if at := slices.IndexFunc(datagrams[c.Port], func(j int) bool { return sameSocket(c, claims[j], shared) }); at >= 0 {
			out[i] = datagrams[c.Port][at]
		}
	}
	return out
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
		for above, ok := WildcardAbove(c.Hostname); ok; above, ok = WildcardAbove(above) {
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

// WildcardAbove returns the next wider hostname, false when there is none: "a.b.example", "*.b.example", "*.example", "".
func WildcardAbove(hostname string) (string, bool) {
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
