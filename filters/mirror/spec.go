package mirror

import (
	"fmt"

	"gatehouse.dev/gatehouse/filters"
)

// Kind is the name that a policy carries.
const Kind = "RequestMirror"

// Spec describes the filter.
func Spec() filters.Spec {
	return filters.Spec{
		Kind:  Kind,
		Phase: filters.PhaseMirror,
		Validate: func(payload []byte) error {
			_, err := open(payload)
			return err
		},
		Build: func(payload []byte, _ *filters.Builder) (filters.Filter, error) {
			f, err := open(payload)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		Describe: describe,
	}
}

func open(payload []byte) (*filter, error) {
	c, err := filters.Decode[Config](payload)
	if err != nil {
		return nil, err
	}
	return compile(c)
}

// describe says "mirror 1/1000 of requests to Service/shop/reviews/8080".
func describe(payload []byte) string {
	c, err := filters.Decode[Config](payload)
	if err != nil {
		return ""
	}
	share := "all"
	switch {
	case c.Invalid != "":
		return "mirror nothing: " + c.Invalid
	case c.Percent != nil:
		share = fmt.Sprintf("%d%% of", *c.Percent)
	case c.Fraction != nil:
		share = fmt.Sprintf("%d/%d of", c.Fraction.Numerator, c.Fraction.denominator())
	}
	return "mirror " + share + " requests to " + c.Cluster
}
