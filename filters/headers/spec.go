package headers

import (
	"strings"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// The kinds of filter here; both take a Config.
const (
	RequestKind  = "RequestHeaderModifier"
	ResponseKind = "ResponseHeaderModifier"
)

// RequestSpec describes the filter that changes requests.
func RequestSpec() filters.Spec {
	return spec(RequestKind, true, func(m modifier) filters.Filter { return requestFilter{m} })
}

// ResponseSpec describes the filter that changes responses.
func ResponseSpec() filters.Spec {
	return spec(ResponseKind, false, func(m modifier) filters.Filter { return responseFilter{m} })
}

func spec(kind string, request bool, wrap func(modifier) filters.Filter) filters.Spec {
	return filters.Shape[Config, modifier]{
		Kind:     kind,
		Phase:    filters.PhaseTransform,
		Compile:  func(c Config) (modifier, error) { return compile(c, request) },
		Filter:   func(m modifier, _ *filters.Builder) filters.Filter { return wrap(m) },
		Describe: describe,
	}.Spec()
}

// describe says "set x-env: prod; add via: x; remove x-debug". It keeps credentials to itself.
func describe(c Config, _ modifier) string {
	var parts []string
	for _, f := range c.Set {
		parts = append(parts, "set "+f.Name+": "+shown(f))
	}
	for _, f := range c.Add {
		parts = append(parts, "add "+f.Name+": "+shown(f))
	}
	for _, name := range c.Remove {
		parts = append(parts, "remove "+name)
	}
	return strings.Join(parts, "; ")
}

func shown(f Field) string {
	if exchange.NamesCredential(f.Name) {
		return "[redacted]"
	}
	return f.Value
}
