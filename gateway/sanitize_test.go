package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// fieldList makes Fields of "name: value" lines.
func fieldList(lines ...string) (f exchange.Fields) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		f.Add(name, value)
	}
	return f
}

func linesOf(f exchange.Fields) (lines []string) {
	for _, field := range f {
		lines = append(lines, field.Name+": "+field.Value)
	}
	return lines
}

// carriesIdentitySlowly says what carriesIdentity means, without its shortcuts.
func carriesIdentitySlowly(name string) bool {
	folded := strings.NewReplacer("_", "-", ".", "-").Replace(lowerASCII(name))
	for _, known := range identityNames {
		if folded == known || strings.HasSuffix(known, "-") && strings.HasPrefix(folded, known) {
			return true
		}
	}
	return false
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func TestCarriesIdentity(t *testing.T) {
	spellings := func(name string) []string {
		return []string{
			name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."),
			strings.ToUpper(name[:1]) + strings.Replace(name[1:], "-", "_", 1),
		}
	}
	for _, known := range identityNames {
		names := spellings(known)
		if strings.HasSuffix(known, "-") {
			names = append(names, spellings(known+"for")...)
			names = append(names, spellings(known+"a-very-long-name_of.something")...)
		}
		for _, name := range names {
			if !carriesIdentity(name) {
				t.Errorf("%q gets through", name)
			}
		}
	}
	for _, name := range []string{
		"", "x", "x-", "forwarded-x", "forwardedx", "xforwarded-for", "x-forwarded", "x--forwarded-for", "x-real-ip-2", "x-request-idx", "x-request",
		"accept", "cookie", "traceparent", "content-type", "user-agent", "x-user", "x/forwarded-for", "x-\u212areal-ip", "true-client-i\u0440",
	} {
		if carriesIdentity(name) {
			t.Errorf("%q is removed", name)
		}
	}
}

func FuzzCarriesIdentity(f *testing.F) {
	for _, known := range identityNames {
		f.Add(known)
		f.Add(strings.ToUpper(strings.ReplaceAll(known, "-", "_")) + "for")
	}
	f.Add("x-forwarded")
	f.Add("F\x00rwarded")
	f.Fuzz(func(t *testing.T, name string) {
		if got, want := carriesIdentity(name), carriesIdentitySlowly(name); got != want {
			t.Errorf("%q: got %t, want %t", name, got, want)
		}
	})
}

func TestWithoutHop(t *testing.T) {
	tests := map[string]struct{ in, want []string }{
		"nothing to do":   {[]string{"A: 1", "b: 2"}, []string{"A: 1", "b: 2"}},
		"hop by hop":      {[]string{"Connection: close", "Keep-Alive: 5", "TE: gzip", "Transfer-Encoding: chunked", "Upgrade: x", "Proxy-Connection: close", "A: 1"}, []string{"A: 1"}},
		"named":           {[]string{"x-secret: 1", "Connection: close, X-Secret", "A: 1"}, []string{"A: 1"}},
		"named elsewhere": {[]string{"connection: x-a", "X-A: 1", "X-B: 2", "CONNECTION: \tX-B ,,", "x-b: 3", "X-C: 4"}, []string{"X-C: 4"}},
		"end to end":      {[]string{"Connection: host, content-length, content-type, authorization, cookie", "Host: h", "Content-Length: 1", "Content-Type: t", "Authorization: a", "Cookie: c"}, []string{"Host: h", "Content-Length: 1", "Content-Type: t", "Authorization: a", "Cookie: c"}},
		"part of a name":  {[]string{"Connection: x-ab", "x-a: 1", "x-abc: 2"}, []string{"x-a: 1", "x-abc: 2"}},
		"only connection": {[]string{"Connection: connection"}, nil},
		"empty":           {nil, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := linesOf(withoutHop(fieldList(tt.in...))); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSanitizeRequest(t *testing.T) {
	tests := map[string]struct{ in, want []string }{
		"claims": {[]string{"X-Forwarded-For: 1.2.3.4", "x_real_ip: 1.2.3.4", "Forwarded: for=x", "Accept: */*"}, []string{"Accept: */*"}},
		"host":   {[]string{"Host: a", "A: 1"}, []string{"A: 1"}},
		"TE":     {[]string{"TE: gzip, trailers;q=1, Trailers", "A: 1"}, []string{"A: 1", "TE: trailers"}},
		"TE alone": {
			[]string{"te: gzip"}, nil,
		},
		"trailers announced": {
			[]string{"Trailer: X-Sum, Authorization, x_forwarded_for,, Content-Length , grpc-status, a b, x(y)", "A: 1"},
			[]string{"A: 1", "Trailer: X-Sum, grpc-status"},
		},
		"no trailer may be": {[]string{"Trailer: host, te"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			head := &exchange.Head{Fields: fieldList(tt.in...)}
			sanitizeRequest(head)
			if got := linesOf(head.Fields); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAllowedTrailers(t *testing.T) {
	in := fieldList("grpc-status: 0", "Host: evil", "Authorization: Basic x", "Content-Length: 7", "Transfer-Encoding: chunked", "X_Forwarded_For: 1",
		"Forwarded: for=1", "cookie: a=b", "X-Sum: 9", "Connection: close", "Trailer: a", "Te: trailers", "traceparent: 00", ":path: /")
	if got := linesOf(allowedTrailers(in)); !slices.Equal(got, []string{"grpc-status: 0", "X-Sum: 9"}) {
		t.Errorf("got %q", got)
	}
}

func TestForwardingFields(t *testing.T) {
	x := &exchange.Exchange{Peer: exchange.Peer{RemoteIP: "2001:db8::1"}, Req: exchange.Head{Scheme: "https"}}
	forward(x, "www.example.com:8443")
	got := linesOf(x.Req.Fields)
	want := []string{"X-Forwarded-For: 2001:db8::1", "X-Forwarded-Proto: https", "X-Forwarded-Host: www.example.com:8443"}
	if len(got) != 4 || !slices.Equal(got[:3], want) {
		t.Errorf("got %q, want %q and an id", got, want)
	}
	seen := map[string]bool{}
	for range 100 {
		id := requestID(x)
		if len(id) != 32 || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	none := &exchange.Exchange{Peer: x.Peer, Req: exchange.Head{Scheme: "http"}}
	forward(none, "")
	if text := fmt.Sprint(linesOf(none.Req.Fields)); strings.Contains(text, "Forwarded-Host") {
		t.Errorf("an HTTP/1.0 request without Host became %s", text)
	}
}

func TestSanitizeResponse(t *testing.T) {
	in := fieldList("Server: x", "Connection: x-internal", "X-Internal: 1", "Alt-Svc: h3=\":443\"", "alt-svc: clear", "Keep-Alive: 5", "X-Forwarded-For: kept")
	if got := linesOf(sanitizeResponse(in)); !slices.Equal(got, []string{"Server: x", "X-Forwarded-For: kept"}) {
		t.Errorf("got %q", got)
	}
}
