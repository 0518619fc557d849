package exchange

import (
	"strings"
	"testing"
)

func TestIDOfKnowsEveryNameInAnyCase(t *testing.T) {
	seen := map[string]ID{}
	for id := Unknown + 1; id < idCount; id++ {
		name := id.String()
		if name == "" || name != strings.ToLower(name) {
			t.Fatalf("ID %d is spelled %q", id, name)
		}
		if other, dup := seen[name]; dup {
			t.Fatalf("%q is both %d and %d", name, other, id)
		}
		seen[name] = id
		title := strings.ToUpper(name[:1]) + name[1:]
		odd := name[:len(name)-1] + strings.ToUpper(name[len(name)-1:])
		for _, spelling := range []string{name, strings.ToUpper(name), title, odd} {
			if got := IDOf(spelling); got != id {
				t.Errorf("IDOf(%q) = %d, want %d", spelling, got, id)
			}
		}
		for _, other := range []string{name + "x", "x" + name, name[1:], name[:len(name)-1], name[:len(name)-1] + "\x00", strings.ReplaceAll(name, "-", "_")} {
			if got := IDOf(other); got != seen[other] && got.String() != other {
				t.Errorf("IDOf(%q) = %d (%s)", other, got, got)
			}
		}
	}
}

func TestIDOfUnknown(t *testing.T) {
	// The Kelvin sign and the long s fold to 'k' and 's' in Unicode, not in a field name.
	for _, name := range []string{"", "x", "x-unknown", "ho\x00st", "coo\u212aie", "ho\u017ft", "hos\u0054t", strings.Repeat("a", longestName), strings.Repeat("a", 300)} {
		if got := IDOf(name); got != Unknown {
			t.Errorf("IDOf(%q) = %s, want none", name, got)
		}
	}
	if got := ID(250).String() + Unknown.String(); got != "" {
		t.Errorf("names of no ID: %q", got)
	}
}

func TestIDOfDoesNotAllocate(t *testing.T) {
	allocs := testing.AllocsPerRun(100, func() {
		for _, name := range []string{"host", "Content-Length", "X-FORWARDED-FOR", "x-unknown", "sec-websocket-key"} {
			_ = IDOf(name)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func TestHopByHop(t *testing.T) {
	want := map[ID]bool{
		Connection: true, KeepAlive: true, ProxyConnection: true, ProxyAuthorization: true, TE: true, Trailer: true,
		TransferEncoding: true, Upgrade: true, HTTP2Settings: true,
	}
	for id := range idCount {
		if id.HopByHop() != want[id] {
			t.Errorf("%s: %v, want %v", id, id.HopByHop(), want[id])
		}
	}
}

func FuzzIDOf(f *testing.F) {
	for id := range idCount {
		f.Add(id.String())
	}
	f.Add("X-Forwarded-For")
	f.Add("\u212a")
	f.Fuzz(func(t *testing.T, name string) {
		want := Unknown
		for id := Unknown + 1; id < idCount; id++ {
			if isASCII(name) && strings.ToLower(name) == id.String() {
				want = id
			}
		}
		if got := IDOf(name); got != want {
			t.Errorf("IDOf(%q) = %d, want %d", name, got, want)
		}
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}
