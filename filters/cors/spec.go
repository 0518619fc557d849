package cors

import (
	"strings"

	"gatehouse.dev/gatehouse/filters"
)

// Kind is the name that a policy carries.
const Kind = "CORS"

// Spec describes the filter.
func Spec() filters.Spec {
	return filters.Spec{
		Kind:  Kind,
		Phase: filters.PhaseCORS,
		Validate: func(payload []byte) error {
			_, err := open(payload)
			return err
		},
		Build: func(payload []byte, b *filters.Builder) (filters.Filter, error) {
			p, err := open(payload)
			if err != nil {
				return nil, err
			}
			return &filter{policy: p, slot: filters.NewSlot[decision](b)}, nil
		},
		Describe: describe,
	}
}

func open(payload []byte) (policy, error) {
	c, err := filters.Decode[Config](payload)
	if err != nil {
		return policy{}, err
	}
	return compile(c)
}

// describe says "cors: origins https://a, https://*.b with credentials".
func describe(payload []byte) string {
	c, err := filters.Decode[Config](payload)
	switch {
	case err != nil:
		return ""
	case len(c.AllowOrigins) == 0:
		return "cors: no origin allowed"
	}
	s := "cors: origins " + strings.Join(c.AllowOrigins, ", ")
	if c.AllowCredentials {
		s += " with credentials"
	}
	return s
}
