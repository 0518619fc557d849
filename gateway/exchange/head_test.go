package exchange

import (
	"strings"
	"testing"
)

func TestHost(t *testing.T) {
	tests := map[string]struct {
		authority string
		host      string
		port      string
	}{
		"empty":              {"", "", ""},
		"name":               {"example.com", "example.com", ""},
		"name and port":      {"example.com:8080", "example.com", "8080"},
		"upper case":         {"EXAMPLE.Com:80", "example.com", "80"},
		"trailing dot":       {"example.com.", "example.com", ""},
		"trailing dot, port": {"Example.com.:443", "example.com", "443"},
		"empty port":         {"example.com:", "example.com", ""},
		"only a port":        {":80", "", "80"},
		"IPv4":               {"192.0.2.1:80", "192.0.2.1", "80"},
		"IPv6":               {"[2001:DB8::1]", "2001:db8::1", ""},
		"IPv6 and port":      {"[2001:db8::1]:8443", "2001:db8::1", "8443"},
		"IPv6 bare":          {"2001:db8::1", "2001:db8::1", ""},
		"IPv6 not closed":    {"[2001:db8::1", "[2001:db8::1", ""},
		"not ASCII":          {"\u212aUBE.example", "\u212aube.example", ""},
		"not UTF-8":          {"\xffA.example", "\xffa.example", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := Head{Authority: tt.authority}
			if h.Host() != tt.host || h.AuthorityPort() != tt.port {
				t.Errorf("%q: host %q, port %q; want %q, %q", tt.authority, h.Host(), h.AuthorityPort(), tt.host, tt.port)
			}
		})
	}
}

func TestHostDoesNotAllocate(t *testing.T) {
	allocs := testing.AllocsPerRun(100, func() {
		for _, authority := range []string{"example.com", "example.com.:8080", "[2001:db8::1]:443"} {
			h := Head{Authority: authority}
			_, _ = h.Host(), h.AuthorityPort()
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, seed := range []string{"", "a:1", "[::1]:1", "[::1", "::1", "A.", "a..:1", "[]", "]:1", ":", "\u212a:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		host := CanonicalHost(authority)
		if strings.ContainsFunc(host, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
			t.Errorf("%q became %q, with upper case", authority, host)
		}
		h := Head{Authority: authority}
		if port := h.AuthorityPort(); port != "" && !strings.HasSuffix(authority, ":"+port) {
			t.Errorf("%q has the port %q", authority, port)
		}
	})
}
