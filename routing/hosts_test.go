package routing

import (
	"strings"
	"testing"
	"time"
)

func TestHostMatches(t *testing.T) {
	tests := map[string]struct {
		pattern, host string
		want          bool
	}{
		"every host":                   {"", "a.test", true},
		"every host, none sent":        {"", "", true},
		"exact":                        {"a.test", "a.test", true},
		"exact, other":                 {"a.test", "b.test", false},
		"exact, sub-name":              {"a.test", "b.a.test", false},
		"wildcard, one label":          {"*.example.com", "a.example.com", true},
		"wildcard, two labels":         {"*.example.com", "a.b.example.com", true},
		"wildcard, apex":               {"*.example.com", "example.com", false},
		"wildcard, empty label":        {"*.example.com", ".example.com", false},
		"wildcard, sibling":            {"*.example.com", "badexample.com", false},
		"wildcard, no host":            {"*.example.com", "", false},
		"exact, no host":               {"a.test", "", false},
		"the pattern itself as a host": {"*.example.com", "*.example.com", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := HostMatches(test.pattern, test.host); got != test.want {
				t.Errorf("HostMatches(%q, %q) = %v", test.pattern, test.host, got)
			}
			var hosts Hosts[int]
			hosts.Set(test.pattern, 1)
			if value, got := hosts.Find(test.host); got != test.want || got != (value == 1) {
				t.Errorf("Hosts{%q}.Find(%q) = %d, %v", test.pattern, test.host, value, got)
			}
		})
	}
}

func TestHostsFindsTheMostSpecific(t *testing.T) {
	var hosts Hosts[string]
	patterns := []string{"", "*.test", "*.a.test", "*.b.a.test", "a.test", "b.a.test", "test"}
	for _, pattern := range patterns {
		hosts.Set(pattern, "pattern "+pattern)
	}
	for _, pattern := range patterns {
		if got, ok := hosts.Get(pattern); !ok || got != "pattern "+pattern {
			t.Errorf("Get(%q) = %q, %v", pattern, got, ok)
		}
	}
	tests := map[string][]string{
		"a.test":      {"a.test", "*.test", ""},
		"b.a.test":    {"b.a.test", "*.a.test", "*.test", ""},
		"c.b.a.test":  {"*.b.a.test", "*.a.test", "*.test", ""},
		"x.c.b.test":  {"*.test", ""},
		"test":        {"test", ""},
		"other":       {""},
		"":            {""},
		".test":       {""},
		"..test":      {"*.test", ""},
		"..a.test":    {"*.a.test", "*.test", ""},
		"192.0.2.1":   {""},
		"2001:db8::1": {""},
	}
	for host, want := range tests {
		var got []string
		value, pos, ok := hosts.next(host, 0)
		for ok {
			got = append(got, strings.TrimPrefix(value, "pattern "))
			value, pos, ok = hosts.next(host, pos)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") || len(got) != len(want) {
			t.Errorf("%q goes %q, want %q", host, got, want)
		}
		if first, ok := hosts.Find(host); !ok || first != "pattern "+want[0] {
			t.Errorf("Find(%q) = %q, %v", host, first, ok)
		}
	}
}

func TestHostsZeroValue(t *testing.T) {
	var hosts Hosts[int]
	for _, host := range []string{"", "a", "a.b"} {
		if _, ok := hosts.Find(host); ok {
			t.Errorf("Find(%q) finds something in an empty index", host)
		}
		if _, ok := hosts.Get(host); ok {
			t.Errorf("Get(%q) finds something in an empty index", host)
		}
	}
}

// A host of very many labels must not cost a hash of each of its suffixes.
func TestHostsHostileHost(t *testing.T) {
	var hosts Hosts[int]
	hosts.Set("*.a.a.example.com", 1)
	for i := range 20 { // a small map compares lengths before it hashes
		hosts.Set("*."+strings.Repeat("b", i)+".example.com", 2)
	}
	host := strings.Repeat("a.", 500_000) + "example.com"
	start := time.Now()
	if _, ok := hosts.Find(host); !ok {
		t.Error("the wildcard does not match")
	}
	if _, ok := hosts.Find(host + "x"); ok {
		t.Error("the wildcard matches another name")
	}
	if took := time.Since(start); took > 2*time.Second { // quadratic, it is minutes
		t.Errorf("took %v", took)
	}
}

func TestIntersect(t *testing.T) {
	tests := map[string]struct {
		listener, route string
		want            string
		none            bool
	}{
		"neither":                              {"", "", "", false},
		"no listener hostname":                 {"", "a.test", "a.test", false},
		"no listener hostname, wildcard":       {"", "*.test", "*.test", false},
		"no route hostname":                    {"a.test", "", "a.test", false},
		"no route hostname, wildcard":          {"*.test", "", "*.test", false},
		"equal":                                {"a.test", "a.test", "a.test", false},
		"equal wildcards":                      {"*.test", "*.test", "*.test", false},
		"other":                                {"a.test", "b.test", "", true},
		"exact listener, wildcard route":       {"test.example.com", "*.example.com", "test.example.com", false},
		"exact listener, far wildcard route":   {"test.example.com", "*.com", "test.example.com", false},
		"wildcard listener, exact":             {"*.example.com", "test.example.com", "test.example.com", false},
		"wildcard listener, two labels":        {"*.example.com", "foo.test.example.com", "foo.test.example.com", false},
		"wildcard listener, apex":              {"*.example.com", "example.com", "", true},
		"wildcard listener, other":             {"*.example.com", "test.example.net", "", true},
		"wildcard listener, narrower wildcard": {"*.example.com", "*.b.example.com", "*.b.example.com", false},
		"narrow listener, wider wildcard":      {"*.b.example.com", "*.example.com", "*.b.example.com", false},
		"wildcards side by side":               {"*.a.example.com", "*.b.example.com", "", true},
		"wildcards with a common ending":       {"*.ample.com", "*.example.com", "", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := Intersect(test.listener, test.route)
			if got != test.want || ok == test.none {
				t.Errorf("Intersect(%q, %q) = %q, %v", test.listener, test.route, got, ok)
			}
		})
	}
}

func FuzzIntersect(f *testing.F) {
	f.Add("*.example.com", "a.b.example.com", "a.b.example.com")
	f.Add("", "*.a.test", "b.a.test")
	f.Add("*.b.example.com", "*.example.com", "a.b.example.com")
	f.Add("example.com", "*.example.com", "example.com")
	f.Fuzz(func(t *testing.T, listener, route, host string) {
		if ValidateHost(listener) != nil || ValidateHost(route) != nil || strings.HasPrefix(host, "*") {
			return
		}
		both, ok := Intersect(listener, route)
		mirrored, mirroredOK := Intersect(route, listener)
		if both != mirrored || ok != mirroredOK {
			t.Fatalf("not symmetric: %q and %q", both, mirrored)
		}
		want := HostMatches(listener, host) && HostMatches(route, host)
		if got := ok && HostMatches(both, host); got != want {
			t.Fatalf("Intersect(%q, %q) = %q, %v, but host %q matches both: %v", listener, route, both, ok, host, want)
		}
		if ok && ValidateHost(both) != nil {
			t.Fatalf("%q is no pattern", both)
		}
	})
}

func TestValidateHost(t *testing.T) {
	tests := map[string]struct {
		pattern string
		wantErr string
	}{
		"every host":     {"", ""},
		"exact":          {"a.example.com", ""},
		"one label":      {"localhost", ""},
		"wildcard":       {"*.example.com", ""},
		"star alone":     {"*", "'*'"},
		"star inside":    {"a.*.com", "'*'"},
		"part of label":  {"*a.com", "'*'"},
		"two stars":      {"*.*.com", "'*'"},
		"star dot":       {"*.", "empty label"},
		"leading dot":    {".a.com", "empty label"},
		"trailing dot":   {"a.com.", "empty label"},
		"double dot":     {"a..com", "empty label"},
		"upper case":     {"A.com", "lower case"},
		"space":          {"a b.com", "character"},
		"path":           {"a.com/b", "character"},
		"other script":   {"bücher.example", "xn--"},
		"long":           {strings.Repeat("a.", 127), "253"},
		"as long as can": {strings.Repeat("a.", 126) + "a", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			checkErr(t, ValidateHost(test.pattern), test.wantErr)
		})
	}
}

// checkErr checks for an error whose text holds want, or for none if want is "".
func checkErr(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("unexpected error: %v", err)
	case want != "" && err == nil:
		t.Errorf("no error, want one with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("error %q does not hold %q", err, want)
	}
}
