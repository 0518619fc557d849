package exchange

import (
	"slices"
	"strings"
	"testing"
	"unsafe"
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

func TestValidAuthority(t *testing.T) {
	valid := []string{"", "a", "a.example", "A.Example.:8080", "my_app:1", "192.0.2.1:65535", "[::1]", "[2001:DB8::1]:443", "[::ffff:192.0.2.1]:80", "~a"}
	invalid := []string{
		":80", "a:", "a:0", "a:65536", "a:+80", "a:-1", "a:0x50", "a:8 0", "a:80:90", "u@a", "u:p@a", "a b", "a/", "a\\b", "a?", "a#", "a%2e", "a,b", "é",
		"a\r\nX: y", "a\x00", "::1", "[::1", "[::1]x", "[::1]:", "[::1]:x", "[]", "[1.2.3.4]", "[fe80::1%eth0]", "[fe80::1%25eth0]", "[v1.a]", "a]", "*",
	}
	for _, authority := range valid {
		if !ValidAuthority(authority) {
			t.Errorf("%q is refused", authority)
		}
	}
	for _, authority := range invalid {
		if ValidAuthority(authority) {
			t.Errorf("%q passes", authority)
		}
	}
}

// TestHeadClone overwrites the buffer that the head looks into, as a connection does once the exchange is over.
func TestHeadClone(t *testing.T) {
	buffer := []byte("GET/a//b?qexample.comhttpwebsocketX-Av")
	take := func(n int) string {
		s := unsafe.String(&buffer[0], n)
		buffer = buffer[n:]
		return s
	}
	whole := buffer
	h := Head{Method: take(3), Target: take(7), Authority: take(11), Scheme: take(4), Protocol: take(9)}
	h.Fields.Add(take(3), take(1))
	if err := h.Normalize(); err != nil {
		t.Fatal(err)
	}
	c := h.Clone()
	clear(whole)
	got := []string{c.Method, c.Target, c.Authority, c.Scheme, c.Protocol, c.Path(), c.Query(), c.Fields[0].Name, c.Fields[0].Value}
	want := []string{"GET", "/a//b?q", "example.com", "http", "websocket", "/a/b", "q", "X-A", "v"}
	if !slices.Equal(got, want) || !c.HasQuery() {
		t.Errorf("the copy is %q, want %q", got, want)
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
		if ValidAuthority(authority) && strings.ContainsAny(host, "@/\\?# \r\n%[],*") {
			t.Errorf("%q is valid with the host %q", authority, host)
		}
		if port := h.AuthorityPort(); port != "" && !strings.HasSuffix(authority, ":"+port) {
			t.Errorf("%q has the port %q", authority, port)
		}
	})
}
