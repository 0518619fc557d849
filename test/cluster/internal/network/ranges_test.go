package network

import (
	"net/netip"
	"testing"
)

func TestDivide(t *testing.T) {
	r, err := Divide(netip.MustParsePrefix("10.91.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ got, want string }{
		"bridge":         {r.Bridge().String(), "10.91.0.1"},
		"host":           {r.Host().String(), "10.91.255.1"},
		"node":           {r.Node().String(), "10.91.255.2"},
		"API":            {r.API().String(), "10.91.128.1"},
		"load balancers": {r.LoadBalancers.String(), "10.91.192.0/20"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %s, want %s", name, test.got, test.want)
		}
	}
	parts := []netip.Prefix{r.Pods, r.Services, r.LoadBalancers, r.Link}
	for i, p := range parts {
		if !r.All.Contains(p.Addr()) || p.Masked() != p {
			t.Errorf("%s is not a part of %s", p, r.All)
		}
		for _, q := range parts[i+1:] {
			if p.Overlaps(q) {
				t.Errorf("%s overlaps %s", p, q)
			}
		}
	}
	if !r.LoadBalancers.Contains(r.OnRequest.Addr()) {
		t.Errorf("%s is outside of %s", r.OnRequest, r.LoadBalancers)
	}
	for _, wrong := range []string{"10.91.0.0/17", "10.91.1.0/16", "fd00::/16"} {
		if _, err := Divide(netip.MustParsePrefix(wrong)); err == nil {
			t.Errorf("%s was divided", wrong)
		}
	}
}

func TestPool(t *testing.T) {
	three := netip.MustParseAddr("10.0.0.3")
	p := NewPool(netip.MustParsePrefix("10.0.0.0/29"), func(a netip.Addr) bool { return a == three })
	next := func() string {
		t.Helper()
		a, err := p.Next()
		if err != nil {
			return "none"
		}
		return a.String()
	}
	if !p.Take(netip.MustParseAddr("10.0.0.2")) || p.Take(netip.MustParseAddr("10.0.0.2")) || p.Take(netip.MustParseAddr("10.0.1.2")) {
		t.Error("an address can be taken once, and only of the range")
	}
	for i, want := range []string{"10.0.0.1", "10.0.0.4", "10.0.0.5"} {
		if got := next(); got != want {
			t.Errorf("address %d: %s, want %s", i, got, want)
		}
	}
	p.Return(netip.MustParseAddr("10.0.0.1"))
	for i, want := range []string{"10.0.0.6", "10.0.0.7", "10.0.0.1", "none"} {
		if got := next(); got != want {
			t.Errorf("address %d after one came back: %s, want %s", i, got, want)
		}
	}
	if !p.Take(three) {
		t.Error("a reserved address can be asked for")
	}
}
