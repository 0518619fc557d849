package check

import (
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	for s, want := range map[string]bool{
		"GET": true, "x-a_b.c~1": true, "!#$%&'*+-.^_`|~": true,
		"": false, "a b": false, "a:": false, "a\x00": false, "ä": false, "a\r": false, "\"a\"": false, "a,b": false, "a/b": false,
	} {
		if got := Token(s); got != want {
			t.Errorf("Token(%q) = %v, want %v", s, got, want)
		}
	}
}

func TestFieldName(t *testing.T) {
	for name, want := range map[string]string{"x-a": "", "": "empty", ":path": "pseudo-header", "x a": "not a field name", "x\n": "not a field name"} {
		checkError(t, name, FieldName(name), want)
	}
}

func TestFieldValue(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "a\tb c": "", "ü": "", "\xff": "", "a\rb": "control", "a\nb": "control", "a\x00": "control", "\x7f": "control",
	} {
		checkError(t, value, FieldValue(value), want)
	}
}

func TestHostname(t *testing.T) {
	for host, want := range map[string]string{
		"example.org": "", "a": "", "a-b.c9": "", "": "not valid", "a..b": "not valid", "a.": "not valid", ".a": "not valid",
		"-a.b": "not valid", "a-.b": "not valid", "A.b": "not valid", "a:80": "not valid", "a/b": "not valid", "u@a": "not valid", "*.a": "not valid",
		"a_b": "not valid", "a\r\nb": "not valid", "ä.b": "not valid", strings.Repeat("a.", 127) + "a": "longer than",
	} {
		checkError(t, host, Hostname(host), want)
	}
}

func checkError(t *testing.T, input string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%q: err = %v, want %q", input, err, want)
	}
}
