package gateway_test

import (
	"context"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TestExplain decides without a socket what a request would get.
func TestExplain(t *testing.T) {
	set, err := filters.NewSet()
	if err != nil {
		t.Fatal(err)
	}
	e, err := gateway.New(gateway.Options{Filters: set, Detached: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Shutdown(context.Background()) }()
	head := func(method, authority, target string) *exchange.Head {
		return &exchange.Head{Method: method, Scheme: "http", Authority: authority, Target: target}
	}
	if _, err := e.Explain(80, head("GET", "h0.example.com", "/"), 5); err == nil || !strings.Contains(err.Error(), "there are: none") {
		t.Errorf("nothing applied: %v", err)
	}
	if _, err := e.Apply(t.Context(), routes(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Explain(8080, head("GET", "h0.example.com", "/"), 5); err == nil || !strings.Contains(err.Error(), "http *:80") {
		t.Errorf("another port: %v", err)
	}
	tests := map[string]struct {
		head *exchange.Head
		rule string        // the route that wins
		kind exchange.Kind // or the refusal
	}{
		"won":        {head("GET", "h1.example.com:80", "/app/1/x?y"), "r1", ""},
		"normalised": {head("GET", "H1.example.com.", "/x/../app/1"), "r1", ""},
		"no rule":    {head("GET", "h1.example.com", "/app/2"), "", exchange.NoRoute},
		"no path":    {head("GET", "h1.example.com", "/%00"), "", exchange.BadPath},
		"TRACE":      {head("TRACE", "h1.example.com", "/app/1"), "", exchange.MethodRefused},
		"CONNECT":    {head("CONNECT", "h1.example.com", "/app/1"), "", exchange.MethodRefused},
		"bad host":   {head("GET", "user@h1.example.com", "/app/1"), "", exchange.BadRequest},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := e.Explain(80, tt.head, 5)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case tt.kind != "" && (d.Refused == nil || d.Refused.Kind != tt.kind):
				t.Errorf("refused %+v, want %s", d.Refused, tt.kind)
			case tt.kind == "" && (d.Rule == nil || d.Rule.Route.Name != tt.rule || d.Refused != nil):
				t.Errorf("rule %+v, refused %+v", d.Rule, d.Refused)
			case d.Socket != "*:80":
				t.Errorf("socket %q", d.Socket)
			}
		})
	}
	if _, err := e.Apply(t.Context(), &config.Config{Clusters: []*config.Cluster{{Name: "c"}, {Name: "c"}}}); err == nil {
		t.Error("a configuration with a cluster twice was applied")
	}
	if d, err := e.Explain(80, head("GET", "h1.example.com", "/app/1"), 5); err != nil || d.Rule == nil {
		t.Errorf("a refused configuration replaced the running one: %+v, %v", d, err)
	}
}
