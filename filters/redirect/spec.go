package redirect

import (
	"strconv"
	"strings"

	"gatehouse.dev/gatehouse/filters"
)

// Kind is the name that a policy carries.
const Kind = "RequestRedirect"

// Spec describes the filter.
func Spec() filters.Spec {
	return filters.Shape[Config, *filter]{
		Kind:     Kind,
		Phase:    filters.PhaseRedirect,
		Compile:  compile,
		Filter:   func(f *filter, _ *filters.Builder) filters.Filter { return f },
		Describe: func(_ Config, f *filter) string { return f.describe() },
	}.Spec()
}

// describe says "redirect 301: scheme https, host example.org, port 8443, path becomes /x".
func (f *filter) describe() string {
	var parts []string
	if f.scheme != "" {
		parts = append(parts, "scheme "+f.scheme)
	}
	if f.hostname != "" {
		parts = append(parts, "host "+f.hostname)
	}
	if f.port != 0 {
		parts = append(parts, "port "+strconv.Itoa(int(f.port)))
	}
	if f.path != nil {
		parts = append(parts, f.path.String())
	}
	s := "redirect " + strconv.Itoa(f.status)
	if parts == nil {
		return s
	}
	return s + ": " + strings.Join(parts, ", ")
}
