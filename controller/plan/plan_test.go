package plan

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// claim is "gateway year protocol port hostname address...".
func claim(gateway string, year int, protocol config.Protocol, port uint16, hostname string, addresses ...string) Claim {
	c := Claim{Gateway: config.Origin{Kind: "Gateway", Namespace: "n", Name: gateway}, Protocol: protocol, Port: port, Hostname: hostname}
	if year > 0 {
		c.Created = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	for _, a := range addresses {
		c.Addresses = append(c.Addresses, netip.MustParseAddr(a))
	}
	return c
}

// inSet makes it the claim of a ListenerSet that was created in a year.
func inSet(c Claim, set string, year int) Claim {
	c.Set = config.Origin{Kind: "ListenerSet", Namespace: "n", Name: set}
	c.SetCreated = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
	return c
}

func TestConflicts(t *testing.T) {
	const host, proto = problem.HostnameConflict, problem.ProtocolConflict
	cases := map[string]struct {
		claims []Claim
		alone  bool
		want   []problem.Reason
	}{
		"hostnames tell apart": {
			[]Claim{claim("a", 0, config.HTTP, 80, ""), claim("a", 0, config.HTTP, 80, "x.example"), claim("a", 0, config.HTTP, 80, "*.example")},
			false, []problem.Reason{"", "", ""}},
		"within a gateway nobody wins": {
			[]Claim{claim("a", 0, config.HTTP, 80, "x"), claim("a", 0, config.HTTP, 80, "x"), claim("a", 0, config.HTTP, 80, "y")},
			false, []problem.Reason{host, host, ""}},
		"protocols on one port": {
			[]Claim{claim("a", 0, config.HTTP, 80, "x"), claim("a", 0, config.HTTPS, 80, "y"), claim("a", 0, config.HTTPS, 443, "y")},
			false, []problem.Reason{proto, proto, ""}},
		"the older gateway wins": {
			[]Claim{claim("a", 2024, config.HTTP, 80, ""), claim("b", 2020, config.HTTP, 80, "")},
			false, []problem.Reason{host, ""}},
		"of the same age the first by name wins": {
			[]Claim{claim("b", 2020, config.HTTP, 80, ""), claim("a", 2020, config.HTTP, 80, "")},
			false, []problem.Reason{host, ""}},
		"gateways that share no sockets": {
			[]Claim{claim("a", 0, config.HTTP, 80, ""), claim("b", 0, config.HTTPS, 80, "")},
			true, []problem.Reason{"", ""}},
		"other addresses": {
			[]Claim{claim("a", 0, config.HTTP, 80, "", "127.0.0.1"), claim("b", 0, config.HTTPS, 80, "", "127.0.0.2", "::1")},
			false, []problem.Reason{"", ""}},
		"one address in common": {
			[]Claim{claim("a", 0, config.HTTP, 80, "", "127.0.0.1"), claim("b", 0, config.HTTP, 80, "", "127.0.0.2", "127.0.0.1")},
			false, []problem.Reason{"", host}},
		"all interfaces overlap with each": {
			[]Claim{claim("a", 0, config.HTTP, 80, ""), claim("b", 0, config.HTTPS, 80, "", "127.0.0.2"), claim("c", 0, config.HTTP, 80, "", "0.0.0.0")},
			false, []problem.Reason{"", proto, host}},
		"HTTPS and TLS share a port by hostname": {
			[]Claim{claim("a", 0, config.HTTPS, 443, "x"), claim("a", 0, config.TLS, 443, "y"), claim("a", 0, config.TLS, 443, "")},
			false, []problem.Reason{"", "", ""}},
		"HTTPS and TLS of one hostname": {
			[]Claim{claim("a", 0, config.HTTPS, 443, "x"), claim("a", 0, config.TLS, 443, "x")}, false, []problem.Reason{host, host}},
		"HTTP and TLS": {
			[]Claim{claim("a", 0, config.HTTP, 443, "x"), claim("a", 0, config.TLS, 443, "y")}, false, []problem.Reason{proto, proto}},
		"TCP has its port alone": {
			[]Claim{claim("a", 0, config.TCP, 1, ""), claim("a", 0, config.HTTP, 1, "x"), claim("a", 0, config.TCP, 2, ""),
				claim("a", 0, config.TLS, 2, "x"), claim("a", 0, config.TCP, 3, ""), claim("a", 0, config.TCP, 3, ""),
				claim("a", 0, config.TCP, 4, "")},
			false, []problem.Reason{proto, proto, proto, proto, proto, proto, ""}},
		"UDP is another port": {
			[]Claim{claim("a", 0, config.UDP, 1, ""), claim("a", 0, config.TCP, 1, ""), claim("a", 0, config.UDP, 2, ""),
				claim("a", 0, config.HTTPS, 2, ""), claim("a", 0, config.UDP, 3, ""), claim("a", 0, config.UDP, 3, "")},
			false, []problem.Reason{"", "", "", "", proto, proto}},
		"a set gives way to its Gateway, entry by entry": {
			[]Claim{claim("a", 0, config.HTTP, 80, "x"), inSet(claim("a", 0, config.HTTP, 80, "x"), "s", 1), inSet(claim("a", 0, config.TCP, 80, ""), "s", 1),
				inSet(claim("a", 0, config.HTTP, 80, "y"), "s", 1)},
			true, []problem.Reason{"", host, proto, ""}},
		"the older set wins": {
			[]Claim{inSet(claim("a", 0, config.HTTP, 80, "x"), "young", 2), inSet(claim("a", 0, config.HTTP, 80, "x"), "old", 1),
				inSet(claim("a", 0, config.HTTP, 81, "x"), "b", 3), inSet(claim("a", 0, config.HTTP, 81, "x"), "a", 3)},
			true, []problem.Reason{host, "", host, ""}},
		"within a set nobody wins": {
			[]Claim{inSet(claim("a", 0, config.HTTP, 80, "x"), "s", 1), inSet(claim("a", 0, config.TCP, 80, ""), "s", 1),
				inSet(claim("a", 0, config.HTTP, 80, "x"), "t", 2)},
			true, []problem.Reason{proto, proto, ""}},
		"sets of different gateways in a cluster": {
			[]Claim{inSet(claim("a", 0, config.HTTP, 80, "x"), "s", 1), inSet(claim("b", 0, config.HTTP, 80, "x"), "s", 1)},
			true, []problem.Reason{"", ""}},
		"sets of different gateways on shared sockets": {
			[]Claim{inSet(claim("b", 2021, config.HTTP, 80, "x"), "s", 1), inSet(claim("a", 2022, config.HTTP, 80, "x"), "t", 0),
				claim("a", 2022, config.HTTP, 80, "y")},
			false, []problem.Reason{"", host, ""}},
		"a refused claim stands in nobody's way": {
			[]Claim{claim("a", 2020, config.HTTP, 80, ""), claim("a", 2020, config.HTTPS, 80, ""), claim("b", 2024, config.HTTP, 80, "")},
			false, []problem.Reason{proto, proto, ""}},
		"the middle one loses, the youngest does not lose to it": {
			[]Claim{claim("a", 2020, config.HTTP, 80, "", "127.0.0.1"), claim("b", 2021, config.HTTP, 80, "", "127.0.0.1", "127.0.0.2"),
				claim("c", 2022, config.HTTP, 80, "", "127.0.0.2")},
			false, []problem.Reason{"", host, ""}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got []problem.Reason
			for _, c := range Conflicts(tc.claims, !tc.alone) {
				got = append(got, c.Reason)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("conflicts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOverlaps(t *testing.T) {
	cases := map[string]struct {
		claims []Claim
		want   []int
	}{
		"the example of the API": {
			[]Claim{claim("a", 0, config.HTTPS, 443, "foo.example.com"), claim("a", 0, config.HTTPS, 443, "foo.example.org"),
				claim("a", 0, config.HTTPS, 443, "*.example.com")},
			[]int{2, -1, 0}},
		"every host covers each": {
			[]Claim{claim("a", 0, config.HTTPS, 443, ""), claim("a", 0, config.HTTPS, 443, "local"), claim("a", 0, config.HTTP, 80, "x.example")},
			[]int{1, 0, -1}},
		"wildcards above one another": {
			[]Claim{claim("a", 0, config.HTTPS, 443, "*.b.example"), claim("a", 0, config.HTTPS, 443, "*.example"), claim("a", 0, config.HTTPS, 8443, "*.example")},
			[]int{1, 0, -1}},
		"a wildcard does not cover its apex": {
			[]Claim{claim("a", 0, config.HTTPS, 443, "*.example.com"), claim("a", 0, config.HTTPS, 443, "example.com")},
			[]int{-1, -1}},
		"another gateway on another address": {
			[]Claim{claim("a", 0, config.HTTPS, 443, "*.example.com", "127.0.0.1"), claim("b", 0, config.HTTPS, 443, "a.example.com", "127.0.0.2")},
			[]int{-1, -1}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Overlaps(tc.claims, Conflicts(tc.claims, true), true)); diff != "" {
				t.Errorf("overlaps (-want +got):\n%s", diff)
			}
		})
	}
}

func TestShadows(t *testing.T) {
	claims := []Claim{
		claim("a", 0, config.HTTPS, 443, "x", "127.0.0.1"), claim("a", 0, config.HTTPS, 443, "y", "127.0.0.1"),
		claim("b", 0, config.UDP, 443, "", "127.0.0.1"), claim("c", 0, config.HTTPS, 443, "", "127.0.0.2"),
		claim("d", 0, config.TLS, 443, "z", "127.0.0.1"), claim("e", 0, config.HTTPS, 8443, "", "127.0.0.1"),
	}
	cases := map[string]struct {
		shared bool
		want   []int
	}{
		"shared sockets": {true, []int{2, 2, -1, -1, -1, -1}},
		"in a cluster":   {false, []int{-1, -1, -1, -1, -1, -1}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Shadows(claims, Conflicts(claims, tc.shared), tc.shared)); diff != "" {
				t.Errorf("shadows (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIntersects(t *testing.T) {
	cases := map[string]struct {
		listener string
		route    []string
		want     bool
	}{
		"neither":                  {"", nil, true},
		"the listener's":           {"*.example", nil, true},
		"the route's":              {"", []string{"a.example", "*.b"}, true},
		"what both have":           {"*.example", []string{"example", "b.test", "a.example"}, true},
		"an exact listener is all": {"a.example", []string{"*.example"}, true},
		"the apex of a wildcard":   {"*.example", []string{"example"}, false},
		"nothing":                  {"a.example", []string{"b.example"}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Intersects(tc.listener, tc.route); got != tc.want {
				t.Errorf("got %t, want %t", got, tc.want)
			}
		})
	}
}

// TestBuilder checks that what is added in any order comes out sorted, and that what did not change keeps its pointer.
func TestBuilder(t *testing.T) {
	old := time.Unix(1, 0)
	first := &config.Route{Origin: config.Origin{Namespace: "z", Name: "z"}, Created: old}
	second := &config.Route{Origin: config.Origin{Namespace: "a", Name: "b"}, Created: old.Add(1)}
	older, younger := &config.StreamRoute{Rule: "0"}, &config.StreamRoute{Rule: "0"}
	third := &config.Route{Origin: config.Origin{Namespace: "a", Name: "c"}, Created: old.Add(1)}
	build := func(previous *Plan, port uint16, routes ...*config.Route) *Plan {
		b := NewBuilder(previous)
		l := b.Listener(config.Listener{Name: "n/g/two", Port: 2})
		l.Routes = append(l.Routes, routes...)
		b.Listener(config.Listener{Name: "n/g/one", Port: port})
		b.Cluster(&config.Cluster{Name: "b"})
		b.Cluster(&config.Cluster{Name: "a"})
		b.Certificate(&config.Certificate{Name: "n/b"})
		b.Certificate(&config.Certificate{Name: "n/a", Key: config.Secret("k")})
		b.Outcome(Outcome{Object: config.Origin{Kind: "HTTPRoute", Name: "r"}, ParentRef: 1}, Outcome{Object: config.Origin{Kind: "Gateway"}},
			Outcome{Object: config.Origin{Kind: "HTTPRoute", Name: "r"}})
		b.Problem(problem.Problem{File: "b"}, problem.Problem{File: "a"})
		b.Gateway(Gateway{Origin: config.Origin{Kind: "Gateway", Namespace: "b", Name: "a"}})
		b.Gateway(Gateway{Origin: config.Origin{Kind: "Gateway", Namespace: "a", Name: "b"}})
		b.Want("Secret", "n", "b")
		b.Want("ConfigMap", "n", "z")
		b.Want("Secret", "n", "b")
		tcp := b.Listener(config.Listener{Name: "n/g/tcp", Port: port, Protocol: config.TCP})
		tcp.Streams = append(tcp.Streams, younger, older)
		return b.Plan()
	}
	plan := build(nil, 1, third, first, second)
	c := plan.Config
	if c.Listeners[0].Name != "n/g/one" || c.Clusters[0].Name != "a" || c.Certificates[0].Name != "n/a" || plan.Problems[0].File != "a" {
		t.Errorf("the plan is not sorted: %+v", plan)
	}
	if got := c.Listeners[2].Routes; got[0] != first || got[1] != second || got[2] != third {
		t.Errorf("routes are not in order of precedence")
	}
	if o := plan.Outcomes; o[0].Object.Kind != "Gateway" || o[1].ParentRef != 0 || o[2].ParentRef != 1 {
		t.Errorf("outcomes are not sorted: %+v", o)
	}

	if plan.Gateways[0].Origin.Namespace != "a" || len(plan.Wants) != 2 || plan.Wants[0].Kind != "ConfigMap" {
		t.Errorf("gateways or wants are not sorted: %+v", plan)
	}
	if got := c.Listeners[1].Streams; got[0] != younger || got[1] != older {
		t.Error("streams are not in the order that they were appended in")
	}

	same := build(plan, 1, first, second, third).Config
	if same.Listeners[0] != c.Listeners[0] || same.Listeners[1] != c.Listeners[1] || same.Listeners[2] != c.Listeners[2] || same.Certificates[0] != c.Certificates[0] {
		t.Error("something unchanged is another pointer")
	}
	younger = &config.StreamRoute{Rule: "1"}
	if other := build(plan, 1, first, second, third).Config; other.Listeners[1] == c.Listeners[1] || other.Listeners[2] != c.Listeners[2] {
		t.Error("another stream makes another listener, and no other")
	}
	fewer := build(plan, 3, first, second).Config
	if fewer.Listeners[0] == c.Listeners[0] || fewer.Listeners[2] == c.Listeners[2] {
		t.Error("a listener that changed is the same pointer")
	}
	if len(c.Listeners[2].Routes) != 3 || c.Listeners[0].Port != 1 {
		t.Error("a new plan changed the one before")
	}
}
