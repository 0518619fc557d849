package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/routing"
)

const secret = "s3cr3t-value"

// TestSecretUnprintable: no way of printing shows a private key.
func TestSecretUnprintable(t *testing.T) {
	c := &Config{Certificates: []*Certificate{{Name: "a/b", Chain: "chain", Key: Secret(secret)}}}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{
		"json": string(text), "v": fmt.Sprintf("%v", c.Certificates[0]), "+v": fmt.Sprintf("%+v", *c.Certificates[0]),
		"#v": fmt.Sprintf("%#v", *c.Certificates[0]), "s": fmt.Sprint(c.Certificates[0].Key), "q": fmt.Sprintf("%q", c.Certificates[0].Key),
	} {
		if strings.Contains(got, secret) || !strings.Contains(got, "[redacted]") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestRedactedPayload: credentials go by the name they stand under, everything else stays as it is.
func TestRedactedPayload(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"none":        {``, ``},
		"nothing":     {`{"set":[{"value":"b","name":"x-a"}],"remove":["cookie"]}`, `{"set":[{"value":"b","name":"x-a"}],"remove":["cookie"]}`},
		"set":         {`{"set":[{"name":"Authorization","value":"s"}]}`, `{"set":[{"name":"Authorization","value":"[redacted]"}]}`},
		"add":         {`{"add":[{"name":"x","value":"a"},{"name":"set-cookie","value":"s"}]}`, `{"add":[{"name":"x","value":"a"},{"name":"set-cookie","value":"[redacted]"}]}`},
		"keys' case":  {`{"Name":"cookie","VALUE":"s"}`, `{"Name":"cookie","VALUE":"[redacted]"}`},
		"value first": {`{"value":"s","name":"x-api-key"}`, `{"name":"x-api-key","value":"[redacted]"}`},
		"not a text":  {`{"name":"x-api-key","value":{"a":["s"]}}`, `{"name":"x-api-key","value":"[redacted]"}`},
		"deep":        {`[[{"a":{"b":{"name":"proxy-authorization","value":"s"}}}]]`, `[[{"a":{"b":{"name":"proxy-authorization","value":"[redacted]"}}}]]`},
		"numbers":     {`{"n":12345678901234567890,"l":[{"name":"cookie","value":1}]}`, `{"l":[{"name":"cookie","value":"[redacted]"}],"n":12345678901234567890}`},
		"name only":   {`{"name":"cookie"}`, `{"name":"cookie"}`},
		"other name":  {`{"name":7,"value":"v"}`, `{"name":7,"value":"v"}`},
		"not JSON":    {`{"name":"cookie","value":"s"`, `"[redacted]"`},
		"two values":  {`{} {"name":"cookie","value":"s"}`, `"[redacted]"`},
		"trailing":    {`{}]`, `"[redacted]"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := string(redactPayload(RawJSON(tt.in))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestRedacted: nothing of a configuration that stands for a credential is shown, and the configuration itself keeps it.
func TestRedacted(t *testing.T) {
	policy := Policy{Kind: "RequestHeaderModifier", Payload: RawJSON(`{"set":[{"name":"Authorization","value":"` + secret + `"},{"name":"x","value":"plain"}]}`)}
	credential := []routing.ValueMatch{{Name: "X-Api-Key", Value: secret}, {Name: "x", Value: "plain"}}
	route := &Route{
		Origin: Origin{Kind: "HTTPRoute", Namespace: "ns", Name: "r"},
		Rules: []*Rule{{
			Name: "0", Filters: []Policy{policy},
			Matches:  []routing.Match{{Path: "/shown", Headers: credential, Query: []routing.ValueMatch{{Name: "access_token", Value: secret}}}},
			Backends: []Backend{{Cluster: "c", Weight: 1, Filters: []Policy{policy}}},
		}},
	}
	c := &Config{
		Listeners: []*Listener{
			{Name: "a", Port: 80, Protocol: HTTP, Routes: []*Route{route}, Filters: []Policy{policy},
				Tracing: &Tracing{Headers: []Header{{Name: "x-team", Value: secret}}}},
			{Name: "b", Port: 81, Protocol: HTTP, Routes: []*Route{route}},
			{Name: "s", Port: 82, Protocol: TCP, Streams: []*StreamRoute{{Rule: "0", Backends: []Backend{{Cluster: "c", Weight: 1}}}}},
		},
		Clusters:     []*Cluster{{Name: "c", Protocol: UpstreamHTTP1, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}}},
		Certificates: []*Certificate{{Name: "ns/s", Chain: "chain", Key: Secret(secret)}},
	}
	before, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(Redacted(c))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(shown), secret) {
		t.Errorf("shown: %s", shown)
	}
	// In its place, and only there, stands the word; the key's is in both.
	want := strings.ReplaceAll(string(before), secret, "[redacted]")
	if string(shown) != want {
		t.Errorf("got  %s\nwant %s", shown, want)
	}
	if after, _ := json.Marshal(c); string(after) != string(before) {
		t.Errorf("the configuration itself changed to %s", after)
	}
	if empty, err := json.Marshal(Redacted(&Config{})); err != nil || string(empty) != "{}" {
		t.Errorf("empty: %s, %v", empty, err)
	}
}

func FuzzRedactPayload(f *testing.F) {
	f.Add([]byte(`{"set":[{"name":"Authorization","value":"s"}]}`))
	f.Add([]byte(`{"name":"a","name":"cookie","value":"s"}`))
	f.Add([]byte(`{"name":"cookie","value":"s"} trailing`))
	f.Add([]byte(`[1e999, null, "\ud800"]`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got := redactPayload(payload)
		if len(payload) > 0 && !json.Valid(got) {
			t.Fatalf("%q became %q, which is not JSON", payload, got)
		}
		if again := redactPayload(got); string(again) != string(got) {
			t.Fatalf("%q became %q and then %q", payload, got, again)
		}
	})
}

func TestValidate(t *testing.T) {
	backend := func(b Backend) []*Route {
		return []*Route{{Origin: Origin{Kind: "HTTPRoute", Namespace: "ns", Name: "r"}, Rules: []*Rule{{Name: "0", Backends: []Backend{b}}}}}
	}
	listener := func(l Listener) *Config { return &Config{Listeners: []*Listener{&l}} }
	tests := map[string]struct {
		config *Config
		want   string // "" when there is nothing wrong
	}{
		"empty":           {&Config{}, ""},
		"good":            {listener(Listener{Name: "l", Port: 80, Protocol: HTTP}), ""},
		"invalid backend": {listener(Listener{Name: "l", Port: 80, Protocol: HTTP, Routes: backend(Backend{Invalid: "BackendNotFound"})}), ""},
		"cluster twice":   {&Config{Clusters: []*Cluster{{Name: "c"}, {Name: "c"}}}, "cluster c stands twice"},
		"certificate twice": {
			&Config{Certificates: []*Certificate{{Name: "c"}, {Name: "c"}}}, "certificate c stands twice",
		},
		"listener twice": {&Config{Listeners: []*Listener{{Name: "l", Port: 1, Protocol: HTTP}, {Name: "l", Port: 2, Protocol: HTTP}}}, "listener l stands twice"},
		"no port":        {listener(Listener{Name: "l", Protocol: HTTP}), "listener l has no port"},
		"HTTPS alone":    {listener(Listener{Name: "l", Port: 1, Protocol: HTTPS}), "do not go together"},
		"TLS alone":      {listener(Listener{Name: "l", Port: 1, Protocol: HTTP, TLS: &ListenerTLS{}}), "do not go together"},
		"no certificate": {listener(Listener{Name: "l", Port: 1, Protocol: HTTPS, TLS: &ListenerTLS{Certificates: []string{"x"}}}), "there is no certificate x"},
		"no cluster":     {listener(Listener{Name: "l", Port: 1, Protocol: HTTP, Routes: backend(Backend{Cluster: "x"})}), "HTTPRoute/ns/r rule 0: there is no cluster x"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.config.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestBindKey(t *testing.T) {
	for want, addr := range map[string]string{"*:80": "", "0.0.0.0:80": "0.0.0.0", "[::]:80": "::", "192.0.2.1:80": "192.0.2.1"} {
		a, _ := netip.ParseAddr(addr)
		if got := BindKey(a, 80); got != want {
			t.Errorf("%q: got %s, want %s", addr, got, want)
		}
	}
	if got := (&Listener{}).Binds(); len(got) != 1 || got[0].IsValid() {
		t.Errorf("a listener without addresses binds %v", got)
	}
}
