package config

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/routing"
)

// redacted stands where a credential stood.
const redacted = "[redacted]"

// Redacted returns what an operator may see of a configuration, to be marshalled: c without the values of fields and parameters that
// carry credentials by their name. Those stand in filter settings ("set authorization: Basic ...") and in matches ("x-api-key is ...").
// Private keys are unprintable by type.
func Redacted(c *Config) any {
	out := *c
	out.Listeners = make([]*Listener, len(c.Listeners))
	seen := map[*Route]*Route{}
	for i, l := range c.Listeners {
		listener := *l
		listener.Filters = redactPolicies(l.Filters)
		listener.Tracing = redactTracing(l.Tracing)
		listener.Routes = make([]*Route, len(l.Routes))
		for j, r := range l.Routes {
			if seen[r] == nil {
				seen[r] = redactRoute(r)
			}
			listener.Routes[j] = seen[r]
		}
		out.Listeners[i] = &listener
	}
	return &out
}

// redactTracing hides the values of the fields that go to the trace collector, which are mostly credentials, whatever their names.
func redactTracing(t *Tracing) *Tracing {
	if t == nil || len(t.Headers) == 0 {
		return t
	}
	out := *t
	out.Headers = slices.Clone(t.Headers)
	for i := range out.Headers {
		out.Headers[i].Value = redacted
	}
	return &out
}

func redactRoute(r *Route) *Route {
	out := *r
	out.Rules = make([]*Rule, len(r.Rules))
	for i, rule := range r.Rules {
		shown := *rule
		shown.Filters = redactPolicies(rule.Filters)
		shown.Backends = slices.Clone(rule.Backends)
		for j := range shown.Backends {
			shown.Backends[j].Filters = redactPolicies(shown.Backends[j].Filters)
		}
		shown.Matches = slices.Clone(rule.Matches)
		for j := range shown.Matches {
			shown.Matches[j].Headers = redactMatches(shown.Matches[j].Headers)
			shown.Matches[j].Query = redactMatches(shown.Matches[j].Query)
		}
		out.Rules[i] = &shown
	}
	return &out
}

func redactMatches(list []routing.ValueMatch) []routing.ValueMatch {
	out := slices.Clone(list)
	for i := range out {
		if exchange.NamesCredential(out[i].Name) {
			out[i].Value = redacted
		}
	}
	return out
}

func redactPolicies(list []Policy) []Policy {
	out := slices.Clone(list)
	for i := range out {
		out[i].Payload = redactPayload(out[i].Payload)
	}
	return out
}

// redactPayload knows no filter: a credential is the "value" of any object whose "name" says so.
func redactPayload(payload RawJSON) RawJSON {
	if len(payload) == 0 {
		return payload
	}
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	var tree any
	if !json.Valid(payload) || decoder.Decode(&tree) != nil {
		return RawJSON(`"` + redacted + `"`) // what cannot be read cannot be known to be harmless
	}
	if !redactTree(tree) {
		return payload
	}
	shown, err := json.Marshal(tree)
	if err != nil {
		panic("config: what was JSON does not marshal: " + err.Error())
	}
	return shown
}

// redactTree changes a decoded JSON value in place and reports whether there was anything to change.
func redactTree(tree any) (changed bool) {
	switch node := tree.(type) {
	case []any:
		for _, item := range node {
			changed = redactTree(item) || changed
		}
	case map[string]any:
		secret := false
		for key, item := range node {
			name, ok := item.(string)
			secret = secret || ok && strings.EqualFold(key, "name") && exchange.NamesCredential(name)
		}
		for key, item := range node {
			if secret && strings.EqualFold(key, "value") {
				node[key], changed = redacted, true
			} else {
				changed = redactTree(item) || changed
			}
		}
	}
	return changed
}
