package rewrite

import (
	"strings"

	"gatehouse.dev/gatehouse/filters"
)

// Kind is the name that a policy carries.
const Kind = "URLRewrite"

// Spec describes the filter.
func Spec() filters.Spec {
	return filters.Shape[Config, *filter]{
		Kind:     Kind,
		Phase:    filters.PhaseRewrite,
		Compile:  compile,
		Filter:   func(f *filter, _ *filters.Builder) filters.Filter { return f },
		Describe: func(_ Config, f *filter) string { return f.describe() },
	}.Spec()
}

// describe says "rewrite: host becomes example.org, path prefix /foo/ becomes /bar/".
func (f *filter) describe() string {
	var parts []string
	if f.hostname != "" {
		parts = append(parts, "host becomes "+f.hostname)
	}
	if f.path != nil {
		parts = append(parts, f.path.String())
	}
	if parts == nil {
		return "rewrite nothing"
	}
	return "rewrite: " + strings.Join(parts, ", ")
}
