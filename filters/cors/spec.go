package cors

import (
	"strings"

	"gatehouse.dev/gatehouse/filters"
)

// Kind is the name that a policy carries.
const Kind = "CORS"

// Spec describes the filter.
func Spec() filters.Spec {
	return filters.Shape[Config, policy]{
		Kind:    Kind,
		Phase:   filters.PhaseCORS,
		Compile: compile,
		Filter: func(p policy, b *filters.Builder) filters.Filter {
			return &filter{policy: p, slot: filters.NewSlot[decision](b)}
		},
		Describe: describe,
	}.Spec()
}

// describe says "cors: origins https://a, https://*.b with credentials".
func describe(c Config, _ policy) string {
	if len(c.AllowOrigins) == 0 {
		return "cors: no origin allowed"
	}
	s := "cors: origins " + strings.Join(c.AllowOrigins, ", ")
	if c.AllowCredentials {
		s += " with credentials"
	}
	return s
}
