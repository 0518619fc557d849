// Package filtertest is what the tests of filter packages share: an exchange to run a filter on, and the examples of a README,
// which are tests as well.
package filtertest

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Example is a policy as a README shows it and as the configuration carries it.
type Example struct {
	Kind    string          `json:"kind"`
	Payload json.RawMessage `json:"payload"`
}

// Examples returns the policies in the JSON blocks of README.md in the test's folder.
func Examples(t testing.TB) []Example {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var list []Example
	for _, block := range strings.Split(string(text), "```json\n")[1:] {
		body, _, closed := strings.Cut(block, "```")
		var e Example
		if err := json.Unmarshal([]byte(body), &e); err != nil || !closed {
			t.Fatalf("README.md: a JSON block is not a policy: %v", err)
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		t.Fatal("README.md holds no example")
	}
	return list
}

// Build validates and builds a filter from a config or, when config is a json.RawMessage, from a payload.
func Build(t testing.TB, spec filters.Spec, config any) filters.Filter {
	t.Helper()
	payload := filters.Encode(config)
	if err := spec.Validate(payload); err != nil {
		t.Fatalf("%s: Validate: %v", spec.Kind, err)
	}
	f, err := spec.Build(payload, &filters.Builder{})
	if err != nil {
		t.Fatalf("%s: Build: %v", spec.Kind, err)
	}
	return f
}

// CheckRefused asserts that neither Validate nor Build takes a config, and that both say want.
func CheckRefused(t testing.TB, spec filters.Spec, config any, want string) {
	t.Helper()
	payload := filters.Encode(config)
	_, buildErr := spec.Build(payload, &filters.Builder{})
	for step, err := range map[string]error{"Validate": spec.Validate(payload), "Build": buildErr} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s: err = %v, want %q in it", spec.Kind, step, err, want)
		}
	}
}

// CheckStrict asserts that a spec takes neither what is no JSON object nor one with fields it does not know.
func CheckStrict(t testing.TB, spec filters.Spec) {
	t.Helper()
	for _, payload := range []string{"", "[]", `"a"`, "{", `{"noSuchField":1}`, "{}{}"} {
		if err := spec.Validate([]byte(payload)); err == nil {
			t.Errorf("%s: Validate takes %q", spec.Kind, payload)
		}
		if _, err := spec.Build([]byte(payload), &filters.Builder{}); err == nil {
			t.Errorf("%s: Build takes %q", spec.Kind, payload)
		}
		if got := spec.Describe([]byte(payload)); got != "" {
			t.Errorf("%s: Describe says %q about %q", spec.Kind, got, payload)
		}
	}
}

// Exchange returns an exchange with a request for url ("http://host:port/path?query"), which came to the listener on localPort.
// headers are names and values in turn.
func Exchange(t testing.TB, method, url string, localPort uint16, headers ...string) *exchange.Exchange {
	t.Helper()
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		t.Fatalf("%q is not an absolute URL", url)
	}
	authority, target := rest, "/"
	if i := strings.IndexAny(rest, "/?*"); i >= 0 {
		authority, target = rest[:i], rest[i:]
	}
	x := &exchange.Exchange{
		Peer: exchange.Peer{
			Remote: netip.MustParseAddrPort("192.0.2.7:40000"),
			Local:  netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), localPort),
			Proto:  exchange.HTTP11,
		},
		Req:     exchange.Head{Method: method, Scheme: scheme, Authority: authority, Target: target},
		ReqBody: exchange.NoBody,
		Start:   time.Now(),
	}
	for i := 0; i+1 < len(headers); i += 2 {
		x.Req.Fields.Add(headers[i], headers[i+1])
	}
	if err := x.Req.Normalize(); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return x
}

// Fields makes a list of names and values in turn.
func Fields(pairs ...string) exchange.Fields {
	var f exchange.Fields
	for i := 0; i+1 < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f
}

// Lines writes fields one to a line, in order.
func Lines(f exchange.Fields) string {
	var b strings.Builder
	for _, line := range f {
		b.WriteString(line.Name + ": " + line.Value + "\n")
	}
	return b.String()
}
